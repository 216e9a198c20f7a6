"""`report.html`: one file that holds all it shows and opens without a network. What it says comes from elsewhere."""

import base64
import io
import os
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image
from plotly.offline import get_plotlyjs

from nas.config import Candidate, ImageShape
from nas.errors import StudyError
from nas.files import write_whole
from nas.report import experiments, facts, tables
from nas.report.charts import Chart, confusion_of, run_charts, search_charts
from nas.report.network import draw_network, list_layers, list_parts
from nas.report.record import FullRecord
from nas.report.summary import summary
from nas.report.tables import Table
from nas.report.words import capitalised, count_text, counts_line, flop_text, number_text, recipe_texts, time_text
from nas.runs.record import RunRecord
from nas.study.outcomes import COUNTED, count_trained
from nas.study.strategies import describe

MOST_ROWS = 60  # of trials in the page; `nas report --paper` writes all
SMALLEST_SHOWN = 96  # pixels; smaller images are enlarged by whole factors


@dataclass(frozen=True)
class Section:
    title: str
    parts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def id(self) -> str:
        return "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())


def render_page(record: FullRecord) -> str:
    """The page's HTML."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nas.report"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    sections = [section for section in _sections(record) if section.parts]
    return environment.get_template("report.html").render(
        record=record,
        running=record.counts.get("running", 0),
        sections=sections,
        plotly=Markup(get_plotlyjs()),
    )


def write_page(record: FullRecord, output: Path | None) -> Path:
    """Into `output`, or the study's folder, or, where that may only be read, the working folder. Raises StudyError where none of
    them can be written."""
    path = output or record.paths.report
    if output is None and not os.access(record.paths.folder, os.W_OK):
        path = Path(f"{record.name}-{path.name}")
    if path.is_dir():
        raise StudyError(f"{path} cannot be written: it is a folder", hint=f"name a file: --output {path / 'report.html'}")
    try:
        write_whole(path, render_page(record).encode())
    except OSError as error:
        raise StudyError(f"{path} cannot be written: {error.strerror}", hint="name another file with --output") from None
    return path


def _sections(record: FullRecord) -> list[Section]:
    charts = {chart.id: chart for chart in search_charts(record)}

    def shown(*names: str) -> list[dict[str, Any]]:
        return [_chart(charts[name]) for name in names if name in charts]

    return [
        Section("Summary", [_tiles(record), *(_text(text) for text in [*record.left_out, *summary(record)])]),
        Section("Finalists", _finalists(record)),
        Section("The search", shown("history", "curves")),
        Section(f"{capitalised(record.metric)} and cost", shown("accuracy-params", "accuracy-macs")),
        Section("What mattered", [*shown("importance", "parallel"), *_traits(record)]),
        *_ablation_sections(record),
        Section("Known networks, trained alike", _known_networks(record)),
        Section("Where time went", shown("time", "over-budget")),
        Section("Trials", _trials(record)),
        *_network_sections(record),
        Section("How to repeat it", _repeat(record)),
    ]


# --------------------------------------------------------------------------------------------------------------- parts


def _text(text: str) -> dict[str, Any]:
    return {"kind": "text", "text": text}


def _heading(text: str) -> dict[str, Any]:
    return {"kind": "heading", "text": text}


def _chart(chart: Chart) -> dict[str, Any]:
    # In a script element nothing but its end is markup.
    data = Markup(chart.figure.to_json().replace("<", "\\u003c"))
    return {"kind": "chart", "id": chart.id, "title": chart.title, "caption": chart.caption, "wide": chart.wide, "json": data}


def _table(table: Table, caption: str, folded: bool = False) -> dict[str, Any]:
    return {"kind": "table", "table": table, "caption": caption, "folded": folded}


def _tiles(record: FullRecord) -> dict[str, Any]:
    counts = record.counts
    tiles = []
    if record.best is not None and record.best.accuracy is not None:
        accuracy, how = record.best.accuracy, ""
        if record.finalists:
            accuracy, how = record.finalists[0].mean, f", mean of {number_text(len(record.finalists[0].accuracies), 'seed')}"
        of = "of" if record.metric == "accuracy" else f"{record.metric} on"
        tiles.append((f"{of} the validation images: the best, trial {record.best.number}{how}", f"{accuracy:.2%}"))
        tiles.append(("parameters of the best", count_text(record.best.params)))
    trained = count_trained(counts)
    if record.trials:
        tiles.append((f"networks trained: {counts_line(counts, COUNTED)}", f"{trained:,}"))
        tiles.append(("draws over budget, never trained", f"{counts.get('over_budget', 0):,}"))
        seconds = sum(one.seconds for one in facts.time_spent(record.trials, record.finals))
        tiles.append(("of training and evaluation", time_text(seconds)))
        if record.flop:
            tiles.append(("of training compute", flop_text(record.flop)))
    if (run := record.chosen_run) is not None and run.evaluation is not None:
        images = f"{len(run.evaluation.labels):,} {run.judged_on}, retrained"
        tiles.append((f"of {images}", f"{run.evaluation.accuracy:.2%}"))
        if record.metric != "accuracy":
            tiles.append((f"{record.metric} on {images}", f"{run.evaluation.score(record.settings.study.metric):.2%}"))
    return {"kind": "tiles", "tiles": tiles}


def _finalists(record: FullRecord) -> list[dict[str, Any]]:
    if not record.finalists:
        return []
    rows = record.trials
    return [_table(tables.finalists_table(record.finalists, rows), "The best networks, trained again; the winner first.")]


def _traits(record: FullRecord) -> list[dict[str, Any]]:
    traits = facts.shared_traits(record.trials)
    if not traits:
        return []
    table = Table(
        ("parameter", "among the best", "among the others", "apart"),
        [(trait.slot, trait.best, trait.others, f"{trait.lift:.2f}") for trait in traits[:15]],
        frozenset({3}),
    )
    caption = (
        "The best tenth of the trained networks, at least five, and the others: of a number the middle half, of words and a few "
        "numbers the value that stands out most among the best. Apart: 0 where both are alike, 1 where they share nothing."
    )
    return [_heading("What the best share"), _table(table, caption)]


def _ablation_sections(record: FullRecord) -> list[Section]:
    sections = []
    for ablation in record.ablations:
        parts = [_text(text) for text in experiments.ablation_sentences(ablation)]
        parts += [_chart(chart) for chart in experiments.ablation_charts(ablation)]
        parts += [_table(table, caption) for table, caption in experiments.ablation_tables(ablation).values()]
        sections.append(Section(f"Ablation {ablation.name}", parts))
    return sections


def _known_networks(record: FullRecord) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for one in record.comparisons:
        parts += [_heading(experiments.comparison_heading(one))] * (len(record.comparisons) > 1)
        parts += [_text(text) for text in experiments.comparison_sentences(one)]
        parts.append(_table(experiments.networks_table(one), experiments.comparison_caption(one)))
    return parts


def _trials(record: FullRecord) -> list[dict[str, Any]]:
    rows = record.trials
    best = None if record.best is None else record.best.number
    table = tables.trials_table(rows, best, record.metric)
    trained = len(table.rows)
    if not trained:
        return []
    which = "Every network that trained" if trained <= MOST_ROWS else f"The first {MOST_ROWS} of {trained:,} networks"
    caption = f"{which}: those that completed, then those that did not, by {record.metric}."
    return [_table(table.head(MOST_ROWS), caption, folded=trained > 20)]


def _network_sections(record: FullRecord) -> list[Section]:
    """Of the chosen retrained network; where there is none, of the best trial."""
    sections = []
    if (run := record.chosen_run) is not None and record.chosen is not None:
        title = "The retrained network" if len(record.runs) == 1 else f"The retrained network {run.name}"
        why = [_text(f"{text}.") for text in record.chosen.sentences()]
        sections.append(Section(title, [*why, *_network(run.card.candidate, run.card.shape), *_run(run)]))
    elif record.best_candidate is not None:
        sections.append(Section("The best network", _network(record.best_candidate, record.settings.shape)))
    elif record.best is not None:
        file = record.paths.trial(record.best.number).candidate
        sections.append(Section("The best network", [_text(f"{file} cannot be read any more: the network is not known.")]))
    return sections


def _network(candidate: Candidate, shape: ImageShape) -> list[dict[str, Any]]:
    layers = list_layers(candidate.arch, shape)
    parts = list_parts(candidate.arch, shape, layers)
    total = sum(layer.params for layer in layers)
    recipe = recipe_texts(candidate.train)
    return [
        {
            "kind": "picture",
            "svg": Markup(draw_network(parts, total)),
            "caption": "Left to right as an image passes: height follows the feature map's size, each line in a box is a block's "
            "border; below, the output's shape, what it is built of, and its parameters.",
        },
        _text(f"Recipe: {recipe['recipe']}. Augmentation: {recipe['augment']}."),
        _table(tables.stages_table(parts, shape.classes), "Stage by stage, beside ResNet-18 for images of 224×224."),
        _table(tables.layers_table(layers), f"All {len(layers)} layers", folded=True),
    ]


def _run(run: RunRecord) -> list[dict[str, Any]]:
    parts = [_heading("Training"), *(_chart(chart) for chart in run_charts(run))]
    if run.curve:
        every = f"All {number_text(len(run.curve), 'epoch')}"
        parts.append(_table(tables.epochs_table(run.curve, run.card.metric), every, folded=True))
    if run.evaluation is None:
        tested_on = run.card.includes_test_labels
        why = "The network was trained on the test labels" if tested_on else "The data set has no labelled test images"
        held_out = "" if run.card.held_out is not None else ", and no images were held out (nas retrain --hold-out 0.1)"
        return [*parts, _text(f"{why}{held_out}: what it confuses cannot be shown.")]
    classes = run.card.classes
    mistakes = facts.commonest_mistakes(confusion_of(run))
    if mistakes:
        said = "; ".join(f"{classes[label]} taken for {classes[predicted]} ({times})" for label, predicted, times in mistakes)
        parts.append(_text(f"The commonest mistakes: {said}."))
        parts += [_heading("Most confidently wrong"), {"kind": "mistakes", "mistakes": _mistakes(run)}]
    return parts


def _mistakes(run: RunRecord) -> list[dict[str, str]]:
    found, classes = run.evaluation, run.card.classes
    assert found is not None
    shown = []
    for index, image in zip(found.wrong, found.wrong_images, strict=True):
        predicted = int(found.predicted[index])
        sure = float(found.probabilities[index, predicted])
        caption = f"{classes[int(found.labels[index])]}, taken for {classes[predicted]} ({sure:.0%})"
        shown.append({"url": image_url(image), "caption": caption})
    return shown


def image_url(image: np.ndarray) -> str:
    """Of an image uint8 (H, W, C), small ones enlarged, as a PNG within the address."""
    picture = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    factor = max(1, SMALLEST_SHOWN // max(picture.size))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _repeat(record: FullRecord) -> list[dict[str, Any]]:
    settings = record.settings
    environment = settings.environment
    made = [run.card.environment for run in record.runs]
    rows = [row for one in record.ablations for row in one.rows] + [row for one in record.comparisons for row in one.known]
    made += [card.environment for row in rows for card in row.cards.values()]
    made.sort(key=lambda one: datetime.fromisoformat(one.created))
    commands = dict.fromkeys([environment.command, *(one.command for one in made)])  # each once
    facts_ = [
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
    parts = [
        _text("The commands that made what is shown:"),
        {"kind": "code", "text": "\n".join(commands)},
        _table(Table(("what", "value"), facts_), "Versions and seeds"),
    ]
    if settings.parameters:
        parameters = Table(("parameter", "values"), sorted(settings.parameters.items()))
        parts.append(_table(parameters, f"The space: {len(settings.parameters)} parameters", folded=True))
    return parts
