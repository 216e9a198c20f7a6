"""Figures in words, the same in the terminal, the report and the dashboard."""

from collections.abc import Mapping, Sequence

from nas.config import METRIC_WORDS, MetricName, TrainConfig
from nas.runs.statistics import Spread
from nas.study.finalists import Finalist
from nas.study.outcomes import COUNTED, OUTCOMES, count_trained
from nas.study.trials import TrialRecord

ALL_COUNTS = (*OUTCOMES, "imported", "running", "waiting")


def _scaled(value: float, units: Mapping[str, float], least: float = 0.9995) -> str | None:
    """Three digits and the unit, the first of which there is `least`: by default what three digits round to all of it."""
    return next((f"{value / size:.3g}{unit}" for unit, size in units.items() if value >= least * size), None)


def count_text(value: int | None) -> str:
    """`4.48M`, `272k`, `950`"""
    return "?" if value is None else _scaled(value, {"G": 1e9, "M": 1e6, "k": 1e3}) or str(value)


def bytes_text(size: int) -> str:
    """`1.21 GB`, `340 kB`, in units of 1000."""
    return _scaled(size, {" GB": 1e9, " MB": 1e6, " kB": 1e3}) or f"{size} bytes"


def flop_text(flop: float | None) -> str:
    """`0.283 PFLOP`, `12.4 TFLOP`: of a training or a search."""
    if flop is None:
        return "–"
    return _scaled(flop, {" PFLOP": 1e15, " TFLOP": 1e12}, least=0.0995) or f"{flop / 1e9:.3g} GFLOP"


def time_text(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 05 min`"""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def number_text(count: int, what: str) -> str:
    """`1 epoch`, `1,204 epochs`"""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def capitalised(text: str) -> str:
    """As a sentence begins: `Macro F1`."""
    return text[:1].upper() + text[1:]


def points_text(value: float) -> str:
    """Of a difference of shares, in points: `+0.21`"""
    return f"{100 * value:+.2f}"


def mean_text(found: Spread | None) -> str:
    """Of shares, in percent: `71.30 ± 0.21`"""
    if found is None:
        return ""
    return f"{100 * found.mean:.2f}" + ("" if found.deviation is None else f" ± {100 * found.deviation:.2f}")


def listed(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`"""
    return " and ".join([*([", ".join(parts[:-1])] if parts[1:] else []), *parts[-1:]])


def score_text(value: float, metric: MetricName, images: str = "the validation images") -> str:
    """`84.00% of the validation images`, or by another metric `a macro F1 of 84.00% on the validation images`"""
    return f"{value:.2%} of {images}" if metric == "accuracy" else f"a {METRIC_WORDS[metric]} of {value:.2%} on {images}"


def row_text(row: TrialRecord) -> str:
    """A line of a table: its columns stand under each other."""
    accuracy = "      –" if row.accuracy is None else f"{row.accuracy:7.2%}"
    became = f"{accuracy}  after {row.epochs:3d} {'epoch ' if row.epochs == 1 else 'epochs'}"
    if row.over:
        became = f"{', '.join(f'{name} +{share:.0%}' for name, share in row.over.items()):<25s}"
    cost = f"{count_text(row.params):>5s}"
    parts = f"  batches in {row.micro_batches} parts" if row.micro_batches > 1 else ""
    name = f"trial {row.number:4d}" if row.finalist is None else f"finalist {row.finalist}, seed {row.seed}"
    return f"{name}  {outcome_text(row.outcome):12s} {became}  {cost}  {row.architecture or ''}{parts}"


def finalist_mean_text(finalist: Finalist) -> str:
    """`71.30% ± 0.21 points`"""
    return f"{finalist.mean:.2%}" + ("" if finalist.deviation is None else f" ± {100 * finalist.deviation:.2f} points")


def finalist_text(finalist: Finalist) -> str:
    """`trial 17: 71.30% ± 0.21 points over 2 seeds, 27 epochs`"""
    seeds = len(finalist.accuracies)
    over = f"over {seeds} seeds" if seeds > 1 else "by one seed"
    return f"trial {finalist.number}: {finalist_mean_text(finalist)} {over}, {number_text(finalist.epochs, 'epoch')}"


def outcome_text(outcome: str) -> str:
    """In the words of all tables and figures; `not ended` is what is running or was interrupted."""
    words = {"trained": "completed", "running": "not ended", "imported": "taken over", "finalist": "finalists, trained again"}
    return words.get(outcome, outcome.replace("_", " "))


def counts_line(counts: Mapping[str, int], which: Sequence[str] = ALL_COUNTS) -> str:
    """Every outcome there was, of those asked for."""
    return ", ".join(f"{counts[key]} {outcome_text(key)}" for key in which if counts.get(key))


def trained_text(counts: Mapping[str, int], where: str = "") -> str:
    """`6 networks trained: 1 completed, 5 pruned early`"""
    text, of_these = f"{number_text(count_trained(counts), 'network')} trained{where}", counts_line(counts, COUNTED)
    return f"{text}: {of_these}" if of_these else text


def all_counts_text(counts: Mapping[str, int]) -> str:
    """With what was not trained: `6 networks trained: 1 completed, 5 pruned early; 3 over budget`"""
    others = counts_line(counts, [one for one in ALL_COUNTS if one not in COUNTED])
    return f"{trained_text(counts)}; {others}" if others else trained_text(counts)


def count_draws(counts: Mapping[str, int]) -> int:
    """Also those that have not ended."""
    return sum(counts.values()) - counts.get("imported", 0) - counts.get("waiting", 0)


ALWAYS_SHOWN = {"epochs", "batch_size", "optimiser", "lr", "weight_decay", "schedule", "ema_epochs", "crop_padding", "flip"}


def recipe_texts(train: TrainConfig) -> dict[str, str]:
    """`recipe` and `augment`: the fields that a training uses, with their values; what it does not use is left out."""
    used, recipe = train.canonical().model_dump(exclude_defaults=True), train.model_dump()
    augment = recipe.pop("augment")

    def text(fields: Mapping[str, object], used: Mapping[str, object]) -> str:
        return ", ".join(f"{key} {value_text(value)}" for key, value in fields.items() if key in ALWAYS_SHOWN | used.keys())

    return {"recipe": text(recipe, used), "augment": text(augment, used.get("augment", {}))}


def value_text(value: object) -> str:
    """Of a configuration; four digits of a float."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
