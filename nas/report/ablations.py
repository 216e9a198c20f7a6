"""An ablation in words, tables and a figure, the same for the terminal, the page and a paper."""

from pathlib import Path

from nas.config import METRIC_WORDS
from nas.errors import StudyError
from nas.files import write_whole
from nas.report import figures
from nas.report.charts import Chart
from nas.report.tables import Table
from nas.report.words import capitalised, count_text, mean_text, number_text, points_text, time_text
from nas.runs.ablate import Ablation, Row
from nas.runs.statistics import Spread

LEAST_SEEDS = 2  # for an interval


def file_stem(ablation: Ablation) -> str:
    return "ablation-" + "".join(c if c.isalnum() else "-" for c in ablation.name)


def tables(ablation: Ablation) -> dict[str, tuple[Table, str]]:
    """By file name, with their captions."""
    found = {file_stem(ablation): (variants_table(ablation), _caption(ablation))}
    if effects := effects_table(ablation):
        caption = "What a level changes in the mean over all networks of the grid, beside the same networks with the other level."
        found[f"{file_stem(ablation)}-effects"] = effects, caption
    return found


# --------------------------------------------------------------------------------------------------------------- words


def _difference(found: Spread | None) -> str:
    return "" if found is None else points_text(found.mean)


def _interval(found: Spread | None) -> str:
    if found is None or found.interval is None:
        return ""
    low, high = found.interval
    return f"{points_text(low)} to {points_text(high)}"


def _title(row: Row) -> str:
    """The base with what it has of each factor is said beside the table."""
    return row.variant.title + (f" (as {row.variant.same_as})" if row.variant.same_as else "")


def _remarks(row: Row) -> str:
    remarks = ["over budget"] * (row.variant.over is not None)
    if row.diverged:
        remarks.append(f"diverged by seed {_seeds(row)}")
    return ", ".join(remarks)


def _seeds(row: Row) -> str:
    return ", ".join(map(str, row.diverged))


def base_text(ablation: Ablation) -> str:
    """The base's own levels: `optimiser sgd, activation relu`."""
    definition = ablation.definition
    candidate = definition.base.candidate
    return ", ".join(f"{factor.name} {'+'.join(factor.level_of(candidate))}" for factor in definition.factors)


def sentences(ablation: Ablation) -> list[str]:
    """What was done, and what is known of it, in plain text."""
    definition = ablation.definition
    candidate = definition.base.candidate
    images = ablation.judged_images
    design = "every combination" if definition.grid else "one factor at a time"
    text = (
        f"Base: {definition.subject}, {candidate.arch.one_line()}, {base_text(ablation)}; "
        f"{number_text(candidate.train.epochs, 'epoch')} by recipe {definition.recipe}"
    )
    if definition.fixed:
        text += f", with {', '.join(f'{name} {value}' for name, value in definition.fixed.items())}"
    text += f". Varied: {design}, by {number_text(len(definition.seeds), 'seed')}"
    text += ". " if images is None else f", judged by {images:,} training images that were set aside. "
    if ablation.ended < ablation.expected:
        text += f"{ablation.ended} of {ablation.expected} trainings have ended. "
    said = [text.strip()]
    if over := [f"{row.variant.title} ({row.variant.over})" for row in ablation.rows if row.variant.over is not None]:
        said.append(f"Not within the study's budget: {'; '.join(over)}.")
    if diverged := [f"{row.variant.title} by seed {_seeds(row)}" for row in ablation.rows if row.diverged]:
        said.append(f"Diverged, and in no mean and no difference: {'; '.join(diverged)}.")
    if verdict := _verdict(ablation):
        said.append(verdict)
    return said


def _verdict(ablation: Ablation) -> str:
    """Which intervals leave 0 out."""
    known = [row for row in ablation.rows if row.difference is not None and row.variant.same_as is None]
    if not known:
        return ""
    sure = [row for row in known if row.difference and row.difference.is_not_zero]
    if all(row.difference and row.difference.count == 1 for row in known):
        return "By one seed a difference has no interval: what another seed changes is not known."
    if not any(row.difference and row.difference.interval for row in known):
        return "Differences of one seed, or the same by each, have no interval: what another seed changes is not known."
    if not sure:
        return "No difference is surely one: no 95 % interval leaves 0 out."
    listed = "; ".join(f"{row.variant.title} {_difference(row.difference)} ({_interval(row.difference)})" for row in sure)
    of = "" if len(known) == 1 else f", of {len(known)}"
    return f"Differences whose 95 % interval leaves 0 out{of}: {listed} points."


def _caption(ablation: Ablation) -> str:
    by = METRIC_WORDS[ablation.metric]
    text = (
        f"{capitalised(by)} on the images that were set aside, as they are and under a simulated shift, as mean ± "
        "deviation over the seeds."
    )
    if len(ablation.definition.seeds) >= LEAST_SEEDS:
        text += (
            " Differences to the base are of pairs with the same seed; their 95 % intervals, by Student's t, say what other "
            "seeds would change, on these images. Each stands by itself: of twenty that truly are 0, one interval leaves 0 out."
        )
    return text


# -------------------------------------------------------------------------------------------------------------- tables


def variants_table(ablation: Ablation) -> Table:
    rows = []
    for row in ablation.rows:
        rows.append(
            (
                _title(row),
                f"{row.variant.params:,}",
                count_text(row.variant.macs),
                str(len(row.cards)),
                mean_text(row.score),
                _difference(row.difference),
                _interval(row.difference),
                mean_text(row.shifted),
                _difference(row.shifted_difference),
                "" if row.seconds is None else time_text(row.seconds),
                _remarks(row),
            )
        )
    columns = (
        "variant",
        "parameters",
        "MACs",
        "seeds",
        f"{METRIC_WORDS[ablation.metric]} (%)",
        "difference",
        "95 % interval",
        "shifted (%)",
        "its difference",
        "training",
        "",
    )
    kept = [i for i in range(len(columns)) if columns[i] or any(row[i] for row in rows)]
    numbers = frozenset(place for place, i in enumerate(kept) if 1 <= i <= 9)
    return Table(tuple(columns[i] for i in kept), [tuple(row[i] for i in kept) for row in rows], numbers)


def effects_table(ablation: Ablation) -> Table | None:
    if not ablation.effects:
        return None
    rows = [
        (
            f"{one.factor} {one.level}",
            one.reference,
            str(one.difference.count),
            _difference(one.difference),
            _interval(one.difference),
        )
        for one in ablation.effects
    ]
    return Table(("level", "instead of", "seeds", "difference", "95 % interval"), rows, frozenset({2, 3, 4}))


def figures_table(ablation: Ablation) -> Table:
    """The same in figures alone, shares of 1, for programs."""

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.6f}"

    def of(found: Spread | None) -> tuple[str, str, str, str]:
        low, high = (None, None) if found is None or found.interval is None else found.interval
        return (*((number(found.mean), number(found.deviation)) if found else ("", "")), number(low), number(high))

    names = [factor.name for factor in ablation.definition.factors]
    rows = [
        (
            row.variant.name,
            *_levels(ablation, row),
            str(row.variant.params),
            "" if row.variant.macs is None else str(row.variant.macs),
            str(int(row.variant.over is not None)),
            str(len(row.cards)),
            str(len(row.diverged)),
            *of(row.score)[:2],
            *of(row.difference),
            *of(row.shifted)[:2],
            *of(row.shifted_difference),
            "" if row.seconds is None else f"{row.seconds:.1f}",
        )
        for row in ablation.rows
    ]
    difference = ("difference", "difference_deviation", "difference_low", "difference_high")
    columns = (
        "variant",
        *names,
        *("params", "macs", "over_budget", "seeds", "diverged", ablation.metric, "deviation"),
        *difference,
        *("shifted", "shifted_deviation"),
        *(f"shifted_{name}" for name in difference),
        "seconds",
    )
    return Table(columns, rows)


def runs_table(ablation: Ablation) -> Table:
    """A row a run."""
    rows = []
    for row in ablation.rows:
        if row.variant.same_as is None:
            for seed, card in sorted(row.cards.items()):
                assert card.held_out is not None
                scores = f"{card.held_out.clean:.6f}", f"{card.held_out.shifted:.6f}"
                rows.append((row.variant.name, *_levels(ablation, row), str(seed), *scores, f"{card.seconds:.1f}"))
            rows += [(row.variant.name, *_levels(ablation, row), str(seed), "", "", "") for seed in row.diverged]
    names = [factor.name for factor in ablation.definition.factors]
    return Table(("variant", *names, "seed", ablation.metric, "shifted", "seconds"), rows)


def _levels(ablation: Ablation, row: Row) -> list[str]:
    """Of every factor, the base's where it is not varied."""
    base = ablation.definition.base.candidate
    return [row.variant.levels.get(one.name, "+".join(one.level_of(base))) for one in ablation.definition.factors]


def write_tables(ablation: Ablation, folder: Path) -> Path:
    """Returns the Markdown file; LaTeX and CSV lie beside it. Raises StudyError where that cannot be written."""
    table, effects = variants_table(ablation), effects_table(ablation)
    files = {
        "table.md": "\n".join([*sentences(ablation), "", table.markdown()]) + (f"\n{effects.markdown()}" if effects else ""),
        "table.tex": table.latex() + (f"\n{effects.latex()}" if effects else ""),
        "table.csv": figures_table(ablation).csv(),
        "runs.csv": runs_table(ablation).csv(),
    }
    try:
        for name, text in files.items():
            write_whole(folder / name, text.encode())
    except OSError as error:
        raise StudyError(f"{folder} cannot be written: {error.strerror}", hint="make room; the same command goes on") from None
    return folder / "table.md"


# -------------------------------------------------------------------------------------------------------------- figure


def charts(ablation: Ablation) -> list[Chart]:
    """One, where there is any difference to see."""
    known = [(_title(row), row.difference) for row in ablation.rows if row.difference is not None]
    if not known:
        return []
    figure = figures.draw_differences(
        [label for label, _ in known],
        [one for _, one in known],
        f"the base, {base_text(ablation)}",
        f"What each choice changes: {ablation.name}",
    )
    return [Chart(file_stem(ablation), _caption(ablation), figure)]
