"""Networks compared: the best within limits, what accuracy costs, and networks or studies side by side."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from nas.budget import quick_macs, uncounted_products
from nas.config import LIMIT_NAMES, METRIC_WORDS, Candidate, ImageShape, MetricName
from nas.errors import BudgetError, ConfigError
from nas.paths import PRESET, StudyPaths, existing_study, known_studies, study_paths
from nas.report.facts import pareto_front
from nas.report.network import list_parts
from nas.report.record import read_study
from nas.report.tables import Table
from nas.report.words import count_text, counts_line, number_text, value_text
from nas.runs.select import find_subject, none_is_best
from nas.space.space_file import CIFAR10, load_preset
from nas.study.finalists import Finalist, finalists_of
from nas.study.settings import read_settings
from nas.study.storage import open_study
from nas.study.strategies import describe
from nas.study.trials import TrialRecord


@dataclass(frozen=True)
class BestReport:
    study: str
    max_params: int | None
    max_macs: int | None
    best: TrialRecord  # of those within both limits
    front: list[TrialRecord]
    """Of those within `max_macs`, whatever their parameters; and `best`, where others were better in the search."""
    metric: MetricName = "accuracy"  # what the values are of
    uncounted: tuple[str, ...] = ()  # sentences: which multiply-adds are in no count


def trained_rows(rows: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Those that ran to their end: another study's result that was taken over is one, a duplicate is its twin once more."""
    return [row for row in rows if row.outcome == "trained" and row.accuracy is not None and row.params is not None]


def fits(row: TrialRecord, max_params: int | None, max_macs: int | None) -> bool:
    """What is not known does not fit a limit."""
    limits = ((row.params, max_params), (row.macs, max_macs))
    return all(most is None or (value is not None and value <= most) for value, most in limits)


def select_best(
    rows: Iterable[TrialRecord], max_params: int | None = None, max_macs: int | None = None, finalists: Iterable[Finalist] = ()
) -> TrialRecord | None:
    """Of those within the limits the first of the finalists, which come best first, or else the most accurate trained one; of
    equal ones the smaller, then the earlier. None where none fits."""
    inside = [row for row in trained_rows(rows) if fits(row, max_params, max_macs)]
    by_number = {row.number: row for row in inside}
    for finalist in finalists:
        if finalist.number in by_number:
            return by_number[finalist.number]
    return min(inside, key=lambda row: (-(row.accuracy or 0.0), row.params, row.number), default=None)


def accuracy_front(rows: Iterable[TrialRecord], cost: str = "params") -> list[TrialRecord]:
    """The trained ones to which no other is at least equal in accuracy and in `cost` and better in one; of equal ones the
    earliest. By cost, so that accuracy rises with it; the last is what `select_best` takes without limits."""
    trained = sorted(trained_rows(rows), key=lambda row: row.number)
    return [trained[i] for i in pareto_front([(getattr(row, cost), row.accuracy or 0.0) for row in trained])]


def report_best(paths: StudyPaths, max_params: int | None = None, max_macs: int | None = None) -> BestReport:
    """With a limit of MACs, counts those that the study does not store. Raises StudyError if no trial has completed, and
    BudgetError, which names the smallest network, if none is within the limits."""
    study = open_study(paths)
    settings = read_settings(paths)
    rows = trained_rows(TrialRecord.of(trial, settings.train_images) for trial in study.get_trials(deepcopy=False))
    if not rows:
        raise none_is_best(paths)
    if max_macs is not None:
        rows = with_macs(rows, paths)
    best = select_best(rows, max_params, max_macs, finalists_of(study))
    if best is None:
        raise nothing_as_small(rows, paths.name, max_params, max_macs)
    front = accuracy_front(row for row in rows if fits(row, None, max_macs))
    if best not in front:
        front = sorted([*front, best], key=lambda row: (row.params, row.number))
    return BestReport(paths.name, max_params, max_macs, best, front, settings.study.metric, settings.uncounted)


def with_macs(rows: Iterable[TrialRecord], paths: StudyPaths) -> list[TrialRecord]:
    shape = read_settings(paths).shape

    def macs(row: TrialRecord) -> int:
        return quick_macs(Candidate.from_file(paths.trial(row.number).candidate).arch, shape)

    return [row if row.macs is not None else replace(row, macs=macs(row)) for row in rows]


def nothing_as_small(rows: list[TrialRecord], study: str, max_params: int | None, max_macs: int | None) -> BudgetError:
    """`rows` are trained; where `max_macs` is given, all of their multiply-adds are known."""
    asked, least = [], []
    for field, most in (("params", max_params), ("macs", max_macs)):
        if most is not None:
            smallest = min(rows, key=lambda row: (getattr(row, field), row.number))
            asked.append(f"at most {most:,} {LIMIT_NAMES[field]}")
            least.append(f"{getattr(smallest, field):,} {LIMIT_NAMES[field]} (trial {smallest.number})")
    return BudgetError(
        f"no completed network of study {study!r} has {' and '.join(asked)}: the smallest has {', the cheapest '.join(least)}",
        hint="raise the limit; or search with that budget, under another --study NAME",
    )


# ------------------------------------------------------------------------------------------------------------------ side by side


def compare(names: list[str], study: str | None) -> tuple[Table, int]:
    """Studies, where all are studies' names; else networks: `best`, a trial's number (of `study`), `STUDY/best`, `STUDY/12` or
    `preset:NAME`. A row a fact; also how many of them differ, which come first. Raises NasError."""
    if len(names) < 2:
        raise ConfigError(
            f"nas compare needs at least two names, but got {len(names)}", hint="nas compare best preset:resnet-443"
        )
    are_studies = set(names) <= set(known_studies())
    columns = [_study_facts(name) if are_studies else _network_facts(name, study) for name in names]
    facts = list(dict.fromkeys(fact for column in columns for fact in column))
    rows = [(fact, *(column.get(fact, "") for column in columns)) for fact in facts]
    differing = [row for row in rows if len(set(row[1:])) > 1]
    same = [row for row in rows if row not in differing]
    return Table(("", *names), [*differing, *same]), len(differing)


def _study_facts(name: str) -> dict[str, str]:
    report = read_study(study_paths(name))
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
        "best, after": "" if best is None else number_text(best.epochs, "epoch"),
        "its parameters": "" if best is None else f"{best.params:,}",
        "its network": "" if best is None else best.architecture or "",
        "finalists": "; ".join(f"{one.mean:.2%}" for one in report.finalists[:3]),
        "finalists, after": number_text(report.finalists[0].epochs, "epoch") if report.finalists else "",
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
    return _candidate_facts(subject.candidate, settings.shape, accuracy, subject.accuracy_epochs)


def _candidate_facts(candidate: Candidate, shape: ImageShape, accuracy: str, after: int | None = None) -> dict[str, str]:
    arch, recipe = candidate.arch, candidate.train.model_dump()
    parts = list_parts(arch, shape)
    facts = {
        "accuracy": accuracy,
        "accuracy, after": "" if after is None else number_text(after, "epoch"),
        "parameters": f"{sum(part.params for part in parts):,}",
        "multiply-adds": count_text(quick_macs(arch, shape)),
        "images": f"{shape.channels}×{shape.size}×{shape.size}, {shape.classes} classes",
        **{part.name: f"{part.built}  ({part.params:,})" for part in parts},
    }
    if arch.block_source is not None:
        facts["block's file"] = str(arch.block_source)
        facts["multiply-adds not counted"] = ", ".join(uncounted_products(arch, shape))
    augment = {f"augment.{name}": value for name, value in recipe.pop("augment").items()}
    settings = arch.model_dump(exclude={"stages", "stem", "block", "block_source"}) | recipe | augment
    return facts | {name: value_text(value) for name, value in settings.items()}
