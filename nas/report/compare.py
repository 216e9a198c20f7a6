"""Networks or studies side by side."""

from dataclasses import dataclass

from nas.budget import quick_macs
from nas.config import METRIC_WORDS, Candidate, ImageShape
from nas.errors import ConfigError
from nas.paths import PRESET, existing_study, known_studies, study_paths
from nas.report.network import list_parts
from nas.report.study import report_study
from nas.report.tables import Table
from nas.report.words import count_text, counts_line, value_text
from nas.runs.select import find_subject
from nas.space.space_file import CIFAR10, load_preset
from nas.study.settings import read_settings
from nas.study.strategies import describe


@dataclass(frozen=True)
class Compared:
    table: Table  # A row a fact, a column each; facts that are the same in all come last
    different: int  # how many of the rows differ


def compare(names: list[str], study: str | None) -> Compared:
    """Studies, where all are studies' names; else networks: `best`, a trial's number (of `study`), `STUDY/best`, `STUDY/12` or
    `preset:NAME`. Raises NasError."""
    if len(names) < 2:
        raise ConfigError(f"comparing takes two at least, but got {len(names)}", hint="nas compare best preset:resnet-443")
    known = known_studies()
    columns = [_study_facts(name) if set(names) <= set(known) else _network_facts(name, study) for name in names]
    facts = list(dict.fromkeys(fact for column in columns for fact in column))
    rows = [(fact, *(column.get(fact, "") for column in columns)) for fact in facts]
    differing = [row for row in rows if len(set(row[1:])) > 1]
    same = [row for row in rows if row not in differing]
    return Compared(Table(("", *names), [*differing, *same]), len(differing))


def _study_facts(name: str) -> dict[str, str]:
    report = report_study(study_paths(name))
    settings, best = report.settings, report.best
    shape = settings.shape
    return {
        "space": settings.space,
        "budget": settings.budget.describe(),
        "data": settings.data.dataset,
        "images": f"{shape.channels}×{shape.size}×{shape.size}, {shape.classes} classes",
        "trained on": "all" if settings.data.subset is None else f"{settings.data.subset:,} images",
        "epochs": settings.parameters.get("epochs", ""),
        "sampler": describe(settings.study.sampler),
        "pruner": describe(settings.study.pruner),
        "seed": str(settings.seed),
        "networks trained": str(report.trained),
        "trials": counts_line(report.counts),
        "judged by": METRIC_WORDS[settings.study.metric],
        "best": "none yet" if best is None else f"{best.accuracy:.2%}",
        "its parameters": "" if best is None else f"{best.params:,}",
        "its network": "" if best is None else best.architecture or "",
        "finalists": "; ".join(f"{one.mean:.2%}" for one in report.finalists[:3]),
    }


def _network_facts(name: str, study: str | None) -> dict[str, str]:
    if name.startswith(PRESET):
        preset = load_preset(name)
        reported = f"{preset.reported.accuracy:.2%} ({preset.reported.measured_on})"
        return _candidate_facts(preset.candidate, CIFAR10, reported)
    where, _, which = name.rpartition("/")
    paths = existing_study(where or study)
    settings, subject = read_settings(paths), find_subject(paths, which)
    of = "" if settings.study.metric == "accuracy" else f" {METRIC_WORDS[settings.study.metric]}"
    accuracy = "" if subject.accuracy is None else f"{subject.accuracy:.2%} (validation{of}, study {paths.name})"
    return _candidate_facts(subject.candidate, settings.shape, accuracy)


def _candidate_facts(candidate: Candidate, shape: ImageShape, accuracy: str) -> dict[str, str]:
    arch, train = candidate.arch, candidate.train
    parts = list_parts(arch, shape)
    facts = {
        "accuracy": accuracy,
        "parameters": f"{sum(part.params for part in parts):,}",
        "multiply-adds": count_text(quick_macs(arch, shape)),
        "images": f"{shape.channels}×{shape.size}×{shape.size}, {shape.classes} classes",
        **{part.name: f"{part.built}  ({part.params:,})" for part in parts},
    }
    if arch.block_source is not None:
        facts["block's file"] = str(arch.block_source)
    for name, value in arch.model_dump(exclude={"stages", "stem", "block", "block_source"}).items():
        facts[name] = value_text(value)
    recipe = train.model_dump()
    augment = recipe.pop("augment")
    for name, value in [*recipe.items(), *((f"augment.{key}", value) for key, value in augment.items())]:
        facts[name] = value_text(value)
    return facts
