"""Commands that read studies: `nas list`, `best`, `compare`, `presets`, `report`, `runs`."""

from pathlib import Path
from typing import Annotated

import typer

from nas.cli import note, pick, print_json, print_table
from nas.cli.options import JsonOption, StudyOption, command, offer
from nas.errors import ConfigError, StudyError
from nas.paths import existing_study, studies_folder


@command("list", "List the studies, or with --study the trials of one study.", "nas list", "nas list --study digits")
def list_studies(
    study: Annotated[str | None, typer.Option(help="List the trials of this study.", autocompletion=offer("study"))] = None,
    as_json: JsonOption = False,
) -> None:
    from nas.config import METRIC_WORDS
    from nas.report.record import read_studies, read_study
    from nas.report.words import all_counts_text, count_text, counts_line, finalist_text, flop_text, row_text

    if study is not None:
        report = read_study(existing_study(study))
        if as_json:
            told = pick(
                report, "name", "settings", "counts", "led", "trained", "flop", "best", "finalists", "trials", "retrained"
            )
            print_json({**told, "chosen": report.chosen and report.chosen.name})
            return
        for row in report.trials:
            mark = "  ← best" if report.best is not None and row.number == report.best.number else ""
            print(row_text(row) + mark)
        print(all_counts_text(report.counts) + (f"; {flop_text(report.flop)} of training" if report.flop else ""))
        for rank, finalist in enumerate(report.finalists):
            print(f"finalist   {finalist_text(finalist)}{'  ← best' if rank == 0 else ''}")
        for run in report.retrained:
            mark = "  ← chosen" if report.chosen is not None and run == report.chosen.name else ""
            print(f"retrained  {run}{mark}")
        return
    reports, broken = read_studies()
    for sentence in broken:
        note(f"Cannot read {sentence}")
    if as_json:
        print_json(
            [
                {
                    "study": r.name,
                    "searching": r.led,
                    "running": r.counts.get("running", 0),
                    "metric": r.settings.study.metric,
                    **pick(r, "trained", "counts", "best"),
                }
                for r in reports
            ]
        )
        return
    for r in reports:
        metric = r.settings.study.metric
        by = "" if metric == "accuracy" else f"{METRIC_WORDS[metric]} "
        best = (
            "none yet"
            if r.best is None
            else f"{by}{r.best.accuracy:.2%} with {count_text(r.best.params)} (trial {r.best.number})"
        )
        state = "searching" if r.led else "interrupted" if r.counts.get("running") else "not running"
        print(f"{r.name:24s} {state:12s} {r.trained:4d} trained, best {best}; {len(r.retrained)} retrained")
        print(f"{'':24s} {'':12s} {counts_line(r.counts) or 'nothing drawn yet'}")
    if not reports and not broken:
        note(f"No study in {studies_folder()} yet. Next:  nas search --space digits --dataset digits")


@command(
    "best",
    """Show the best trial of a study, and its Pareto front.

The table is the Pareto front of accuracy against parameters: every trial that is more accurate than all smaller ones.
""",
    "nas best",
    "nas best --max-params 1M",
)
def best(
    study: StudyOption = None,
    max_params: Annotated[
        str | None, typer.Option(help="Only trials with at most this many parameters, such as 1M.", metavar="N")
    ] = None,
    max_macs: Annotated[
        str | None, typer.Option(help="Only trials with at most this many MACs, such as 30M.", metavar="N")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    from nas.config import METRIC_WORDS, parse_count
    from nas.report.compare import report_best
    from nas.report.words import count_text, row_text

    most_params, most_macs = (None if text is None else parse_count(text) for text in (max_params, max_macs))
    report = report_best(existing_study(study), most_params, most_macs)
    if as_json:
        print_json(vars(report))
        return
    print(f"Study {report.study}, best: {row_text(report.best)}\n")
    word = METRIC_WORDS[report.metric]
    print(f"{'trial':>5s} {'parameters':>12s} {'MACs':>6s}  {word:>8s}  network")
    for row in report.front:
        mark = "  ← best" if row.number == report.best.number else ""
        cost = f"{row.params:12,} {count_text(row.macs):>6s}"
        print(f"{row.number:5d} {cost}  {row.accuracy:{max(8, len(word))}.2%}  {row.architecture}{mark}")
    for sentence in report.uncounted:
        print(f"{sentence[0].upper()}{sentence[1:]}.")
    note(f"Next:  nas retrain {report.best.number} --study {report.study}")


@command(
    "compare",
    "Compare networks or studies side by side, differences first.",
    "nas compare best 12 preset:resnet-443",
    "nas compare digits digits-wide",
)
def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            help="`best`, a trial number, STUDY/12, STUDY/best or preset:NAME; or names of studies. Two or more.",
            autocompletion=offer("subject"),
        ),
    ],
    study: StudyOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Also show what is equal.")] = False,
    as_json: JsonOption = False,
) -> None:
    from nas.report.compare import compare

    table, different = compare(names, study)
    if as_json:
        print_json({name: {row[0]: row[i] for row in table.rows} for i, name in enumerate(names, 1)})
        return
    print_table(table if everything else table.head(different))
    if not different:
        print("No differences.")


@command(
    "presets",
    "List the presets (built-in published networks), their cost and reported accuracy.",
    "nas presets",
    "nas show preset:resnet-443",
)
def presets(as_json: JsonOption = False) -> None:
    from nas.report.record import report_presets
    from nas.report.words import count_text

    rows = report_presets()
    if as_json:
        print_json(rows)
        return
    print(f"{'preset':22s} {'blocks':10s} {'channels':17s} {'parameters':>10s} {'MACs':>6s}  budget  reported accuracy")
    for row in rows:
        blocks = "-".join(str(n) for n in row.blocks)
        channels = "-".join(str(n) for n in row.channels)
        fits = "fits" if row.fits else "over"
        cost = f"{row.params:10,} {count_text(row.macs):>6s}"
        print(f"{row.name:22s} {blocks:10s} {channels:17s} {cost}  {fits:6s}  {row.accuracy:.2%} {row.measured_on}")


@command("space", "Print the JSON Schema of space files. Editors use it to complete and check a space file.", "nas space schema")
def space(what: Annotated[str, typer.Argument(help="schema: the keys and values of a space file.")]) -> None:
    from nas.space.schema import space_schema
    from nas.study.pruners import PRUNERS
    from nas.study.samplers import SAMPLERS

    if what != "schema":
        raise ConfigError(f"nas space prints the schema, not {what!r}", hint="nas space schema")
    print_json(space_schema(list(SAMPLERS), list(PRUNERS)))


@command(
    "report",
    "Write one HTML page about a study: a summary, every curve, what mattered. Works during a search.",
    "nas report",
    "nas report --study digits --paper paper",
)
def report(
    study: StudyOption = None,
    output: Annotated[Path | None, typer.Option(help="The page. [default: report.html in the study's folder]")] = None,
    paper: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write figures, tables and text for a paper to this folder.")
    ] = None,
) -> None:
    from nas.report.page import write_page
    from nas.report.record import read_record

    paths = existing_study(study)
    record = read_record(paths)
    chosen = [] if record.chosen is None else record.chosen.sentences()
    for sentence in [*(f"Warning: {sentence}" for sentence in record.left_out), *chosen]:
        note(sentence)
    page = write_page(record, output)
    if output is None and page != paths.report:
        note(f"The study's folder {paths.folder} is read-only: the page is in the working folder.")
    print(f"{page}  ({page.stat().st_size / 1e6:.1f} MB)")
    if paper is not None:
        from nas.report.paper import write_paper

        for line in write_paper(record, paper):
            print(line)


@command(
    "runs",
    """List the retrained networks and submissions of a study (its ledger).

The run marked as chosen is the one that nas submit, predict, export and report use by default. Networks of nas baseline are
listed separately. The ledger is in the study's database; missing entries are added from the files of the runs.
""",
    "nas runs",
    "nas runs --verify",
)
def runs(
    study: StudyOption = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read every file, and report those that have changed.")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="First recreate the ledger from the files.")] = False,
    as_json: JsonOption = False,
) -> None:
    from nas.report.runs import baselines_table, list_baselines, list_runs, runs_table, submissions_table
    from nas.runs import ledger
    from nas.runs.card import IF_INTENDED
    from nas.runs.select import find_chosen

    paths = existing_study(study)
    if rebuild:
        made, _ = ledger.rebuild(paths)
        counts = f"{len(made.runs)} runs and {len(made.submissions)} submissions"
        note(f"Recreated the ledger of study {paths.name} from the files: {counts}.")
    if study is None and not as_json:
        note(f"Study {paths.name}:")
    listing = list_runs(paths, verify)
    baselines, damaged = list_baselines(paths, verify)
    chosen = found.name if (found := find_chosen(paths)) else None
    unreadable = [*listing.unreadable, *damaged]
    for sentence in unreadable:
        note(f"Warning: {sentence}")
    if as_json:
        runs = [
            {**run.entry.model_dump(), "recorded": run.recorded, "files": run.files, "chosen": run.name == chosen}
            for run in listing.runs
        ]
        submissions = [{**one.entry.model_dump(), "recorded": one.recorded, "file": one.files} for one in listing.submissions]
        known = [{"name": one.name, **one.entry.model_dump(mode="json"), "files": one.files} for one in baselines]
        data = {"runs": runs, "submissions": submissions, "baselines": known, "unreadable": unreadable}
        print_json({"study": paths.name, **data})
    else:
        if listing.runs:
            print_table(runs_table(listing.runs, chosen))
        if listing.submissions:
            print()
            print_table(submissions_table(listing.submissions))
        if baselines:
            print("\nBaselines:" if listing.runs else "Baselines:")
            print_table(baselines_table(baselines))
        if not listing.runs and not listing.unreadable:
            note(f"No retrained network yet. Next:  nas retrain best --study {paths.name}")
    unrecorded = [run.name for run in listing.runs if not run.recorded]
    if unrecorded and not listing.unreadable:
        them = ", ".join(unrecorded[:3]) + (", …" if len(unrecorded) > 3 else "")
        note(f"Not in the ledger: {them}. Next:  nas runs --rebuild --study {paths.name}")
    changed = listing.changed + [one.name for one in baselines if not one.is_whole]
    if verify and (changed or unreadable):
        raise StudyError(
            f"files of study {paths.name!r} have changed: {', '.join(changed) or 'see the warnings'}",
            hint=f"restore them from a copy; nas submit writes a CSV file again; {IF_INTENDED} of the run, then:  "
            f"nas runs --rebuild --study {paths.name}",
        )
