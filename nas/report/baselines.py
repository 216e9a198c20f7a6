"""Known networks beside the study's own in words and tables, the same for the terminal, the page and a paper."""

from nas.config import LIMIT_NAMES, METRIC_WORDS
from nas.foreign.known import over_text
from nas.report.tables import Table
from nas.report.words import capitalised, count_text, mean_text, number_text, points_text, time_text
from nas.runs.baseline import Comparison, Row
from nas.runs.baseline.results import Difference
from nas.space.recipes import SEARCHED, recipe_names

COLUMNS = (
    "network",
    "parameters",
    "MACs",
    "seeds",
    "held out (%)",
    "shifted (%)",
    "test (%)",
    "training",
    "",
)


def heading(comparison: Comparison) -> str:
    return f"As {comparison.like}, recipe {comparison.recipe}, {number_text(comparison.train.epochs, 'epoch')}"


def _remarks(row: Row) -> str:
    remarks = [f"over by {count_text(excess)} {LIMIT_NAMES[limit]}" for limit, excess in row.over.items()]
    if row.diverged:
        remarks.append(f"diverged by seed {', '.join(map(str, row.diverged))}")
    return ", ".join(remarks)


def networks_table(comparison: Comparison) -> Table:
    """The study's own first; without the columns that say nothing."""
    rows = [
        (
            row.title,
            f"{row.params:,}",
            "?" if row.macs is None else count_text(row.macs),
            str(len(row.cards)),
            mean_text(row.held_out),
            mean_text(row.shifted),
            mean_text(row.test),
            "" if row.seconds is None else time_text(row.seconds),
            _remarks(row),
        )
        for row in (*comparison.own, *comparison.known)
    ]
    kept = [i for i in range(len(COLUMNS)) if i < 4 or any(row[i] for row in rows)]
    numbers = frozenset(place for place, i in enumerate(kept) if 1 <= i <= 7)
    return Table(tuple(COLUMNS[i] for i in kept), [tuple(row[i] for i in kept) for row in rows], numbers)


def caption(comparison: Comparison) -> str:
    by = METRIC_WORDS[comparison.metric]
    text = f"{capitalised(by)}, mean ± deviation over the seeds, of networks trained by the same recipe on the same images"
    own = "; the study's own, then known ones that are not of nas" if comparison.own else ""
    return f"{text}{own}. What is over the study's budget is marked."


def sentences(comparison: Comparison) -> list[str]:
    """How they were trained, and what the differences are, in plain text."""
    images = "" if comparison.train_images is None else f" on {comparison.train_images:,} images"
    text = (
        f"Trained as {comparison.like}: {number_text(comparison.train.epochs, 'epoch')} by recipe {comparison.recipe}{images}, "
        "its order of the images and its draws, seed by seed."
    )
    if comparison.held_out:
        text += f" {comparison.held_out:,} training images were set aside and judge."
    if comparison.test:
        text += f" The official test set, {comparison.test:,} images, was opened once for each training, at its end."
    said = [text]
    if over := [f"{row.title} (by {over_text(row.over)})" for row in comparison.known if row.over]:
        said.append(f"Over the study's budget, and for comparison alone: {'; '.join(over)}.")
    if not comparison.own:
        return [*said, f"No network of the study was retrained alike: {retraining(comparison)} would train one to compare with."]
    return [*said, *(_difference_text(one, comparison) for one in comparison.differences)]


def retraining(comparison: Comparison) -> str:
    """The command that trains the network that the known ones were trained like: `nas retrain 7 --study digits --epochs 24`."""
    which, recipe = comparison.like.removeprefix("trial "), comparison.recipe
    command = f"nas retrain {which} --study {comparison.study} --epochs {comparison.train.epochs}"
    if recipe != SEARCHED:
        command += f" --recipe {recipe}" if recipe in recipe_names() else f" --recipe {recipe}.yaml"
    seeds = sorted({seed for row in comparison.known for seed in row.runs.values()})
    if seeds != [0]:
        command += f" --seeds {','.join(map(str, seeds))}" if len(seeds) > 1 else f" --seed {seeds[0]}"
    command += f" --hold-out {comparison.hold_out:g}" if comparison.hold_out else ""
    return command + (f" --train-subset {comparison.train_subset}" if comparison.train_subset else "")


def _difference_text(one: Difference, comparison: Comparison) -> str:
    where = "on the official test set" if one.on_test else "on the images set aside"
    by = "" if comparison.metric == "accuracy" else f" of {METRIC_WORDS[comparison.metric]}"
    size = f"{one.known.params / one.ours.params:.3g} times the parameters of {one.ours.title}"
    gap = f"{100 * abs(one.spread.mean):.2f} points{by} {'more' if one.spread.mean >= 0 else 'less'}"
    text = f"{one.known.title} has {size}, and reaches {gap} {where}"
    interval = one.spread.interval
    if interval is None:
        by = "one seed" if one.spread.count == 1 else f"each of {one.spread.count} seeds"
        return f"{text}, by {by}; what another one changes is not known."
    low, high = interval
    verdict = "" if one.spread.is_not_zero else ", which holds 0"
    return f"{text} in the mean of {one.spread.count} seeds, 95 % interval {points_text(low)} to {points_text(high)}{verdict}."
