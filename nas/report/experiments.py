"""Ablations and known networks in words, tables and a figure: the same for the terminal, the page and a paper."""

from html import escape
from pathlib import Path

from nas.config import LIMIT_NAMES, METRIC_WORDS
from nas.errors import StudyError
from nas.files import write_whole
from nas.foreign.known import over_text
from nas.report.charts import BLUE, GREY, Chart, new_figure
from nas.report.tables import Column, Table
from nas.report.words import capitalised, count_text, mean_text, number_text, points_text, time_text
from nas.runs.ablate import Ablation
from nas.runs.ablate import Row as AblationRow
from nas.runs.comparison import Comparison, Difference, Row
from nas.runs.statistics import Spread
from nas.space.recipes import SEARCHED, recipe_names

# --------------------------------------------------------------------------------------------------------------- ablations


def _file_stem(ablation: Ablation) -> str:
    return "ablation-" + "".join(c if c.isalnum() else "-" for c in ablation.name)


def ablation_tables(ablation: Ablation) -> dict[str, tuple[Table, str]]:
    """By file name, with their captions."""
    found = {_file_stem(ablation): (variants_table(ablation), ablation_caption(ablation))}
    if effects := effects_table(ablation):
        caption = "Mean difference between a value and the base value, over all networks of the grid."
        found[f"{_file_stem(ablation)}-effects"] = effects, caption
    return found


def ablation_charts(ablation: Ablation) -> list[Chart]:
    """One, where there is any difference to see: to the base, the first on top, the mean with its interval, and a dot a seed."""
    known = [(_row_title(row), row.difference) for row in ablation.rows if row.difference is not None]
    if not known:
        return []
    labels, differences = zip(*known, strict=True)
    axis = f"difference to the base, {_base_text(ablation)} (points)"
    figure = new_figure(f"Effect of each change: {ablation.name}", axis, "", hovermode="closest")
    figure.add_scatter(
        x=[100 * value for one in differences for value in one.values],
        y=[place for place, one in enumerate(differences) for _ in one.values],
        mode="markers",
        name="one seed",
        marker={"color": GREY, "size": 6, "opacity": 0.7},
        hovertemplate="%{x:+.2f} points<extra>one seed</extra>",
    )
    halves = [None if one.interval is None else 100 * (one.interval[1] - one.mean) for one in differences]
    places = list(range(len(labels)))
    figure.add_scatter(
        x=[100 * one.mean for one in differences],
        y=places,
        error_x={"type": "data", "array": [half or 0.0 for half in halves], "color": BLUE, "thickness": 2, "width": 5},
        customdata=["" if half is None else f" ± {half:.2f}" for half in halves],
        mode="markers",
        name="mean with 95 % interval" if any(half is not None for half in halves) else "mean",
        marker={"color": BLUE, "symbol": "diamond", "size": 10},
        hovertemplate="%{y}: %{x:+.2f}%{customdata} points<extra></extra>",
    )
    figure.add_vline(x=0, line={"dash": "dash", "color": GREY})
    names, rows = [escape(label) for label in labels], 34 * max(2, len(labels))
    figure.update_yaxes(tickvals=places, ticktext=names, range=[len(labels) - 0.5, -0.5], title_text=None)
    figure.update_layout(height=170 + rows, legend={"y": -70 / rows}, margin={"l": 8})
    return [Chart(_file_stem(ablation), ablation_caption(ablation), figure)]


def _difference(found: Spread | None) -> str | None:
    return None if found is None else points_text(found.mean)


def _interval(found: Spread | None) -> str | None:
    return None if found is None or found.interval is None else " to ".join(map(points_text, found.interval))


def _seconds(row: AblationRow | Row) -> str | None:
    return None if row.seconds is None else time_text(row.seconds)


def _row_title(row: AblationRow) -> str:
    return row.variant.title + (f" (as {row.variant.same_as})" if row.variant.same_as else "")


def _seeds(row: AblationRow | Row) -> str:
    """Of the trainings that diverged."""
    return f"with seed {', '.join(map(str, row.diverged))}"


def _diverged(row: AblationRow | Row) -> list[str]:
    return [f"diverged {_seeds(row)}"] if row.diverged else []


def _base_text(ablation: Ablation) -> str:
    """The base's own levels: `optimiser sgd, activation relu`."""
    base = ablation.definition.base.candidate
    return ", ".join(f"{factor.name} {'+'.join(factor.level_of(base))}" for factor in ablation.definition.factors)


def ablation_sentences(ablation: Ablation) -> list[str]:
    """What was done, and what is known of it, in plain text."""
    definition, images = ablation.definition, ablation.judged_images
    candidate = definition.base.candidate
    design = "every combination" if definition.grid else "one factor at a time"
    text = (
        f"Base: {definition.subject}, {candidate.arch.one_line()}, {_base_text(ablation)}; "
        f"{number_text(candidate.train.epochs, 'epoch')} with recipe {definition.recipe}"
    )
    if definition.fixed:
        text += f", with {', '.join(f'{name} {value}' for name, value in definition.fixed.items())}"
    text += f". Varied: {design}, with {number_text(len(definition.seeds), 'seed')}"
    text += ". " if images is None else f", evaluated on {images:,} held-out training images. "
    if ablation.ended < ablation.expected:
        text += f"{ablation.ended} of {ablation.expected} trainings have finished. "
    said = [text.strip()]
    if over := [f"{row.variant.title} ({row.variant.over})" for row in ablation.rows if row.variant.over is not None]:
        said.append(f"Over the study's budget: {'; '.join(over)}.")
    if diverged := [f"{row.variant.title} {_seeds(row)}" for row in ablation.rows if row.diverged]:
        said.append(f"Diverged, and left out of means and differences: {'; '.join(diverged)}.")
    if verdict := _verdict(ablation):
        said.append(verdict)
    return said


def _verdict(ablation: Ablation) -> str:
    """Which intervals exclude 0."""
    known = [(row, row.difference) for row in ablation.rows if row.difference is not None and row.variant.same_as is None]
    if not known:
        return ""
    if all(found.count == 1 for _, found in known):
        return "With one seed there is no interval: the effect of the seed is unknown."
    if not any(found.interval for _, found in known):
        return "Differences from one seed, or equal for all seeds, have no interval."
    sure = [f"{row.variant.title} {_difference(found)} ({_interval(found)})" for row, found in known if found.is_not_zero]
    if not sure:
        return "No difference is significant: every 95 % interval contains 0."
    count = f"{len(sure)} of {len(known)} difference{'s' * (len(known) > 1)} {'is' if len(sure) == 1 else 'are'} significant"
    return f"{count} (95 % interval without 0): {'; '.join(sure)} points."


def ablation_caption(ablation: Ablation) -> str:
    text = f"{capitalised(METRIC_WORDS[ablation.metric])} on the held-out images, clean and under a simulated shift, "
    text += "as mean ± standard deviation over the seeds."
    if len(ablation.definition.seeds) > 1:
        text += (
            " Differences to the base are between trainings with the same seed. Their 95 % intervals (Student's t) show the "
            "effect of the seed on these images. They are not corrected for multiple comparisons: even without any "
            "real difference, about one of twenty intervals would not contain 0."
        )
    return text


def variants_table(ablation: Ablation) -> Table:
    def remarks(row: AblationRow) -> str:
        return ", ".join([*(["over budget"] if row.variant.over is not None else []), *_diverged(row)])

    columns = (
        Column("variant", _row_title, number=False),
        Column("parameters", lambda row: f"{row.variant.params:,}"),
        Column("MACs", lambda row: count_text(row.variant.macs)),
        Column("seeds", lambda row: len(row.cards)),
        Column(f"{METRIC_WORDS[ablation.metric]} (%)", lambda row: mean_text(row.over_seeds("clean"))),
        Column("difference", lambda row: _difference(row.difference)),
        Column("95 % interval", lambda row: _interval(row.difference)),
        Column("shifted (%)", lambda row: mean_text(row.over_seeds("shifted"))),
        Column("its difference", lambda row: _difference(row.shifted_difference)),
        Column("training", _seconds),
        Column("", remarks, number=False, optional=True),
    )
    return Table.build(columns, ablation.rows)


def effects_table(ablation: Ablation) -> Table | None:
    columns = (
        Column("level", lambda one: f"{one.factor} {one.level}", number=False),
        Column("instead of", lambda one: one.reference, number=False),
        Column("seeds", lambda one: one.difference.count),
        Column("difference", lambda one: _difference(one.difference)),
        Column("95 % interval", lambda one: _interval(one.difference)),
    )
    return Table.build(columns, ablation.effects) if ablation.effects else None


def figures_table(ablation: Ablation) -> Table:
    """The same in figures alone, shares of 1, for programs."""

    def spread(found: Spread | None, name: str, deviation: str) -> dict[str, object]:
        return {name: found and found.mean, deviation: found and found.deviation}

    def difference(found: Spread | None, name: str) -> dict[str, object]:
        low, high = (None, None) if found is None or found.interval is None else found.interval
        return {**spread(found, name, f"{name}_deviation"), f"{name}_low": low, f"{name}_high": high}

    def figure(value: object) -> str:
        return "" if value is None else f"{value:.6f}" if isinstance(value, float) else str(value)

    rows = [
        {
            **_levels(ablation, row),
            "params": row.variant.params,
            "macs": row.variant.macs,
            "over_budget": int(row.variant.over is not None),
            "seeds": len(row.cards),
            "diverged": len(row.diverged),
            **spread(row.over_seeds("clean"), ablation.metric, "deviation"),
            **difference(row.difference, "difference"),
            **spread(row.over_seeds("shifted"), "shifted", "shifted_deviation"),
            **difference(row.shifted_difference, "shifted_difference"),
            "seconds": None if row.seconds is None else f"{row.seconds:.1f}",
        }
        for row in ablation.rows
    ]
    return Table(tuple(rows[0]), [tuple(map(figure, row.values())) for row in rows])


def runs_table(ablation: Ablation) -> Table:
    """A row a run; one that diverged has no figures."""
    rows: list[tuple[str, ...]] = []
    for row in ablation.rows:
        if row.variant.same_as is None:
            levels = _levels(ablation, row).values()
            for seed, card in sorted(row.cards.items()):
                scores = (f"{card.score(on):.6f}" for on in ("clean", "shifted"))
                rows.append((*levels, str(seed), *scores, f"{card.seconds:.1f}"))
            rows += [(*levels, str(seed), "", "", "") for seed in row.diverged]
    return Table((*_levels(ablation, ablation.rows[0]), "seed", ablation.metric, "shifted", "seconds"), rows)


def _levels(ablation: Ablation, row: AblationRow) -> dict[str, str]:
    """Of every factor, the base's where it is not varied; after the variant's name."""
    base = ablation.definition.base.candidate
    own = {one.name: "+".join(one.level_of(base)) for one in ablation.definition.factors}
    return {"variant": row.variant.name, **{name: row.variant.levels.get(name, level) for name, level in own.items()}}


def write_tables(ablation: Ablation, folder: Path) -> Path:
    """Returns the Markdown file; LaTeX and CSV lie beside it. Raises StudyError where that cannot be written."""
    tables = [table for table, _ in ablation_tables(ablation).values()]
    files = {
        "table.md": "\n".join([*ablation_sentences(ablation), "", *(table.markdown() for table in tables)]),
        "table.tex": "\n".join(table.latex() for table in tables),
        "table.csv": figures_table(ablation).csv(),
        "runs.csv": runs_table(ablation).csv(),
    }
    try:
        for name, text in files.items():
            write_whole(folder / name, text.encode())
    except OSError as error:
        raise StudyError(
            f"{folder} cannot be written: {error.strerror}", hint="free some space; the same command resumes"
        ) from None
    return folder / "table.md"


# ------------------------------------------------------------------------------------- known networks beside the study's own


def comparison_heading(comparison: Comparison) -> str:
    return f"As {comparison.like}, recipe {comparison.recipe}, {number_text(comparison.train.epochs, 'epoch')}"


def networks_table(comparison: Comparison) -> Table:
    """The study's own first."""

    def remarks(row: Row) -> str:
        over = [f"over by {count_text(excess)} {LIMIT_NAMES[limit]}" for limit, excess in row.over.items()]
        return ", ".join([*over, *_diverged(row)])

    columns = (
        Column("network", lambda row: row.title, number=False),
        Column("parameters", lambda row: f"{row.params:,}"),
        Column("MACs", lambda row: count_text(row.macs)),
        Column("seeds", lambda row: len(row.cards)),
        Column("held out (%)", lambda row: mean_text(row.over_seeds("clean")), optional=True),
        Column("shifted (%)", lambda row: mean_text(row.over_seeds("shifted")), optional=True),
        Column("test (%)", lambda row: mean_text(row.over_seeds("test")), optional=True),
        Column("training", _seconds, optional=True),
        Column("", remarks, number=False, optional=True),
    )
    return Table.build(columns, (*comparison.own, *comparison.known))


def comparison_caption(comparison: Comparison) -> str:
    own = ": first networks of the study, then baselines" if comparison.own else ""
    return (
        f"{capitalised(METRIC_WORDS[comparison.metric])}, mean ± standard deviation over the seeds, of networks trained with the "
        f"same recipe on the same images{own}. Networks over the study's budget are marked."
    )


def comparison_sentences(comparison: Comparison) -> list[str]:
    """How they were trained, and what the differences are, in plain text."""
    images = "" if comparison.train_images is None else f" on {comparison.train_images:,} images"
    text = (
        f"Trained as {comparison.like}: {number_text(comparison.train.epochs, 'epoch')} with recipe {comparison.recipe}{images}, "
        "and for each seed with the same order of images and random augmentation."
    )
    if comparison.held_out:
        text += f" {comparison.held_out:,} training images were held out for evaluation."
    if comparison.test:
        text += f" The official test set, {comparison.test:,} images, was evaluated once for each training, at its end."
    said = [text]
    if over := [f"{row.title} (by {over_text(row.over)})" for row in comparison.known if row.over]:
        said.append(f"Over the study's budget, and only for comparison: {'; '.join(over)}.")
    if not comparison.own:
        return [*said, f"No network of the study was retrained in the same way. To train one: {_retraining(comparison)}"]
    return [*said, *(_difference_text(one, comparison) for one in comparison.differences)]


def _retraining(comparison: Comparison) -> str:
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
    where = "on the official test set" if one.on_test else "on the held-out images"
    by = "" if comparison.metric == "accuracy" else f" of {METRIC_WORDS[comparison.metric]}"
    size = f"{one.known.params / one.ours.params:.3g} times the parameters of {one.ours.title}"
    gap = f"{100 * abs(one.spread.mean):.2f} points{by} {'more' if one.spread.mean >= 0 else 'less'}"
    text = f"{one.known.title} has {size}, and reaches {gap} {where}"
    interval = one.spread.interval
    if interval is None:
        by = "one seed" if one.spread.count == 1 else f"each of {one.spread.count} seeds"
        return f"{text}, with {by}; the effect of the seed is unknown."
    low, high = interval
    verdict = "" if one.spread.is_not_zero else ", which contains 0"
    return f"{text}, mean of {one.spread.count} seeds, 95 % interval {points_text(low)} to {points_text(high)}{verdict}."
