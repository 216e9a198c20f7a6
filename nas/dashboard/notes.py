"""What the dashboard says of a trial that ran to its end: its cost, its recipe, its layers; in Markdown."""

from nas.config import Candidate, ImageShape, MetricName
from nas.errors import NasError
from nas.paths import TrialPaths
from nas.report.network import list_layers, list_parts, shape_text
from nas.report.tables import Table, layers_table
from nas.report.words import recipe_texts, score_text


def trial_note(number: int, value: float | None, paths: TrialPaths, shape: ImageShape, metric: MetricName) -> str:
    """Where the trial's folder is gone, a sentence that says so."""
    try:
        candidate = Candidate.from_json(paths.candidate.read_bytes(), source=str(paths.candidate))
    except (OSError, NasError):
        return f"{paths.candidate} cannot be read any more: the network is not known."
    layers = list_layers(candidate.arch, shape)
    parts = list_parts(candidate.arch, shape, layers)
    stages = Table(
        ("part", "built of", "output", "parameters"),
        [(part.name, part.built, shape_text(part.output), f"{part.params:,}") for part in parts],
        frozenset({2, 3}),
    )
    recipe = recipe_texts(candidate.train)
    accuracy = "" if value is None else f", {score_text(value, metric)}"
    return "\n\n".join(
        [
            f"## Trial {number}: {candidate.arch.one_line()}",
            f"{sum(layer.params for layer in layers):,} parameters{accuracy}",
            stages.markdown(),
            f"**Recipe** {recipe['recipe']}",
            f"**Augmentation** {recipe['augment']}",
            "### Layers",
            layers_table(layers).markdown(),
        ]
    )
