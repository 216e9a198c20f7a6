"""`nas runs`"""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli.options import JsonOption, StudyOption
from nas.cli.output import print_json, print_table

if TYPE_CHECKING:
    from nas.report.runs import Listed
    from nas.runs.baseline import BaselineCard
    from nas.runs.ledger import RunEntry, SubmissionEntry

HELP = """List what was retrained in a study, and what was predicted with it: the study's ledger.

The ledger lies in the study's database. The files of a run say the same: what the ledger lacks is added from them. Known networks
that nas baseline trained, to compare with, are listed apart and are in no ledger.
"""


def command(
    study: StudyOption = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file again, and say which is not the one that was recorded.")
    ] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="First make the ledger again from the files.")] = False,
    as_json: JsonOption = False,
) -> None:
    from nas.errors import StudyError
    from nas.paths import existing_study
    from nas.report.runs import list_baselines, list_runs
    from nas.runs import ledger

    paths = existing_study(study)
    if rebuild:
        made, _ = ledger.rebuild(paths)
        counts = f"{len(made.runs)} runs and {len(made.submissions)} submissions"
        print(f"The ledger of study {paths.name} was made again from the files: {counts}.", file=sys.stderr)
    if study is None and not as_json:
        print(f"Study {paths.name}:", file=sys.stderr)
    listing = list_runs(paths, verify)
    baselines, damaged = list_baselines(paths, verify)
    for sentence in [*listing.unreadable, *damaged]:
        print(f"Warning: {sentence}", file=sys.stderr)
    if as_json:
        runs = [{**run.entry.model_dump(), "recorded": run.recorded, "files": run.files} for run in listing.runs]
        submissions = [{**one.entry.model_dump(), "recorded": one.recorded, "file": one.files} for one in listing.submissions]
        known = [{"name": one.name, **one.entry.model_dump(mode="json"), "files": one.files} for one in baselines]
        unreadable = [*listing.unreadable, *damaged]
        found = {"runs": runs, "submissions": submissions, "baselines": known, "unreadable": unreadable}
        print_json({"study": paths.name, **found})
    else:
        if listing.runs:
            print_table(RUN_COLUMNS, [run_row(run) for run in listing.runs])
        if listing.submissions:
            print()
            print_table(SUBMISSION_COLUMNS, [submission_row(one) for one in listing.submissions])
        if baselines:
            print("\nKnown networks, to compare with:" if listing.runs else "Known networks, to compare with:")
            print_table(BASELINE_COLUMNS, [baseline_row(one) for one in baselines])
        if not listing.runs and not listing.unreadable:
            print(f"Nothing was retrained yet. Next:  nas retrain best --study {paths.name}", file=sys.stderr)
    unrecorded = [run.name for run in listing.runs if not run.recorded]
    if unrecorded and not listing.unreadable:
        them = ", ".join(unrecorded[:3]) + (", …" if len(unrecorded) > 3 else "")
        print(f"Not in the ledger: {them}. Next:  nas runs --rebuild --study {paths.name}", file=sys.stderr)
    changed = listing.changed + [one.name for one in baselines if not one.is_whole]
    if verify and (changed or listing.unreadable or damaged):
        raise StudyError(
            f"of study {paths.name!r} not everything is as it was recorded: {', '.join(changed) or 'see the warnings'}",
            hint=f"restore it from a copy; or, if it is meant:  nas runs --rebuild --study {paths.name}",
        )


RUN_COLUMNS = ("run", "recipe", "seed", "epochs", "parameters", "images", "time", "held out", "test accuracy", "commit", "files")
SUBMISSION_COLUMNS = ("submission", "run", "test set", "rows", "averaged over", "made", "commit", "file")
BASELINE_COLUMNS = ("baseline", "like", *RUN_COLUMNS[1:9], "budget", "files")


def baseline_row(one: "Listed[BaselineCard]") -> tuple[str, ...]:
    from nas.config import METRIC_WORDS
    from nas.report.words import time_text

    card = one.entry
    by_metric = "" if card.metric == "accuracy" else f", {METRIC_WORDS[card.metric]} "
    held_out = test = "–"
    if card.held_out is not None:
        held_out = f"{card.held_out.accuracy:.2%}" + (by_metric and f"{by_metric}{card.held_out.clean:.2%}")
    if card.test_accuracy is not None:
        test = f"{card.test_accuracy:.2%}"
        if card.tta != "none" and card.test_accuracy_tta is not None:
            test += f", {card.tta} {card.test_accuracy_tta:.2%}"
        if by_metric and card.test_score is not None:
            test += f"{by_metric}{card.test_score:.2%}"
    figures = (str(card.seed), str(card.train.epochs), f"{card.network.params:,}", f"{card.train_images:,}")
    budget = "fits" if card.network.over_text is None else f"over by {card.network.over_text}"
    named = one.name, card.like, card.recipe
    return (*named, *figures, time_text(card.seconds), held_out, test, budget, one.files)


def run_row(run: "Listed[RunEntry]") -> tuple[str, ...]:
    from nas.config import METRIC_WORDS
    from nas.report.words import time_text

    entry = run.entry
    held_out = "–" if entry.held_out_accuracy is None else f"{entry.held_out_accuracy:.2%}"
    by_metric = "" if entry.metric == "accuracy" else METRIC_WORDS[entry.metric]
    if entry.held_out_score is not None:
        held_out += f", {by_metric} {entry.held_out_score:.2%}"
    accuracy = "–" if entry.test_accuracy is None else f"{entry.test_accuracy:.2%}"
    if entry.test_accuracy_tta is not None and entry.tta != "none":
        accuracy += f", {entry.tta} {entry.test_accuracy_tta:.2%}"
    test_score = {"balanced_accuracy": entry.test_balanced_accuracy, "macro_f1": entry.test_macro_f1}.get(entry.metric)
    if test_score is not None:
        accuracy += f", {by_metric} {test_score:.2%}"
    images = f"{entry.train_images:,}" + (" with test labels" if entry.includes_test_labels else "")
    figures = (str(entry.seed), str(entry.epochs), f"{entry.params:,}", images, time_text(entry.seconds), held_out, accuracy)
    return entry.name, entry.recipe, *figures, commit_text(entry.commit), mark(run.files, run.recorded)


def submission_row(one: "Listed[SubmissionEntry]") -> tuple[str, ...]:
    entry = one.entry
    averaged = f"{entry.tta}, adapted norm" if entry.adapted else entry.tta
    made = entry.created[:16].replace("T", " ")
    what = entry.output, entry.run, entry.test, f"{entry.images:,}", averaged, made
    return *what, commit_text(entry.commit), mark(one.files, one.recorded)


def commit_text(commit: str | None) -> str:
    return "–" if commit is None else commit


def mark(files: str, recorded: bool) -> str:
    return files if recorded else f"{files}, not in the ledger"
