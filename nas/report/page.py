"""`report.html`: one file that holds all it shows and opens without a network. What it says comes from elsewhere."""

import os
from datetime import datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup
from plotly.offline import get_plotlyjs

from nas.errors import StudyError
from nas.files import write_whole
from nas.report import experiments, facts, tables
from nas.report.charts import search_charts
from nas.report.network import draw_network, list_layers, list_parts
from nas.report.record import FullRecord
from nas.report.render import TEMPLATES, image_url
from nas.report.run_charts import confusion_of, run_charts
from nas.report.summary import summary
from nas.report.tables import Table
from nas.report.words import count_text, counts_line, flop_text, number_text, recipe_texts, time_text
from nas.runs.record import RunRecord
from nas.study.outcomes import COUNTED, count_trained
from nas.study.strategies import describe

MOST_ROWS = 60  # trials in the page; `nas report --paper` writes all
MOST_TRAITS = 15  # rows of what the best networks share


def render_page(record: FullRecord) -> str:
    """The page's HTML."""
    best = None if record.best is None else record.best.number
    commands, versions = _repeat(record)
    traits = [(one.slot, one.best, one.others, f"{one.lift:.2f}") for one in facts.shared_traits(record.trials)[:MOST_TRAITS]]
    return TEMPLATES.get_template("report.html").render(
        record=record,
        tiles=_tiles(record),
        summary=[*record.left_out, *summary(record)],
        finalists=tables.finalists_table(record.finalists, record.trials),
        charts={chart.id: chart for chart in search_charts(record)},
        traits=Table(("parameter", "among the best", "among the others", "difference"), traits, frozenset({3})),
        experiments=experiments,
        trials=tables.trials_table(record.trials, best, record.metric),
        most_rows=MOST_ROWS,
        network=_network(record),
        retrained=record.chosen_run and _run(record.chosen_run),
        number_text=number_text,
        commands=commands,
        versions=versions,
        parameters=Table(("parameter", "values"), sorted(record.settings.parameters.items())),
        plotly=Markup(get_plotlyjs()),
    )


def write_page(record: FullRecord, output: Path | None) -> Path:
    """Into `output`, or the study's folder, or, where that may only be read, the working folder. Raises StudyError where none of
    them can be written."""
    path = output or record.paths.report
    if output is None and not os.access(record.paths.folder, os.W_OK):
        path = Path(f"{record.name}-{path.name}")
    if path.is_dir():
        raise StudyError(f"{path} cannot be written: it is a folder", hint=f"choose a file: --output {path / 'report.html'}")
    try:
        write_whole(path, render_page(record).encode())
    except OSError as error:
        raise StudyError(f"{path} cannot be written: {error.strerror}", hint="choose another file with --output") from None
    return path


def _tiles(record: FullRecord) -> list[tuple[str, str]]:
    """What each is of, and a figure."""
    counts = record.counts
    tiles = []
    if record.best is not None and record.best.accuracy is not None:
        accuracy, how = record.best.accuracy, ""
        if record.finalists:
            accuracy, how = record.finalists[0].mean, f", mean of {number_text(len(record.finalists[0].accuracies), 'seed')}"
        of = "of" if record.metric == "accuracy" else f"{record.metric} on"
        tiles.append((f"{of} the validation images: the best, trial {record.best.number}{how}", f"{accuracy:.2%}"))
        tiles.append(("parameters of the best trial", count_text(record.best.params)))
    trained = count_trained(counts)
    if record.trials:
        tiles.append((f"networks trained: {counts_line(counts, COUNTED)}", f"{trained:,}"))
        tiles.append(("candidates over budget, not trained", f"{counts.get('over_budget', 0):,}"))
        seconds = sum(one.seconds for one in facts.time_spent(record.trials, record.finals))
        tiles.append(("of training and evaluation", time_text(seconds)))
        if record.flop:
            tiles.append(("of training compute", flop_text(record.flop)))
    if (run := record.chosen_run) is not None and run.evaluation is not None:
        images = f"{len(run.evaluation.labels):,} {run.judged_on}, retrained"
        tiles.append((f"of {images}", f"{run.evaluation.accuracy:.2%}"))
        if record.metric != "accuracy":
            tiles.append((f"{record.metric} on {images}", f"{run.evaluation.score(record.settings.study.metric):.2%}"))
    return tiles


def _network(record: FullRecord) -> dict[str, Any] | None:
    candidate, shape = record.best_candidate, record.settings.shape
    if candidate is None:
        return None
    layers = list_layers(candidate.arch, shape)
    parts = list_parts(candidate.arch, shape, layers)
    return {
        "svg": Markup(draw_network(parts, sum(layer.params for layer in layers))),
        "recipe": recipe_texts(candidate.train),
        "stages": tables.stages_table(parts, shape.classes),
        "layers": tables.layers_table(layers),
        "count": len(layers),
    }


def _run(run: RunRecord) -> dict[str, Any]:
    classes, found = run.card.classes, run.evaluation
    shown: dict[str, Any] = {"charts": run_charts(run), "epochs": tables.epochs_table(run.curve, run.card.metric)}
    if found is not None:
        mistakes = facts.commonest_mistakes(confusion_of(run))
        shown["commonest"] = [f"{classes[i]} predicted as {classes[j]} ({times})" for i, j, times in mistakes]
        wrong = zip(found.labels[found.wrong], found.predicted[found.wrong], found.probabilities[found.wrong], strict=True)
        captions = [f"{classes[label]}, predicted as {classes[other]} ({sure[other]:.0%})" for label, other, sure in wrong]
        shown["wrong"] = list(zip(map(image_url, found.wrong_images), captions, strict=True))
    return shown


def _repeat(record: FullRecord) -> tuple[list[str], Table]:
    """The commands that made what is shown, each once, and the versions."""
    settings = record.settings
    environment = settings.environment
    rows = [row for one in record.ablations for row in one.rows] + [row for one in record.comparisons for row in one.known]
    cards = [run.card for run in record.runs] + [card for row in rows for card in row.cards.values()]
    made = sorted((card.environment for card in cards), key=lambda one: datetime.fromisoformat(one.created))
    versions = [
        ("study began", environment.created),
        ("seed", str(settings.seed)),
        ("commit", environment.git or "not in a checkout"),
        ("machine", environment.machine),
        ("Python", environment.python),
        *((name, version) for name, version in environment.packages.items()),
        ("data", f"{settings.data.dataset}, fingerprint {settings.data_fingerprint}"),
        ("sampler", describe(settings.study.sampler)),
        ("pruner", describe(settings.study.pruner)),
        ("budget", settings.budget.describe()),
    ]
    commands = [environment.command, *(one.command for one in made)]
    return list(dict.fromkeys(commands)), Table(("what", "value"), versions)
