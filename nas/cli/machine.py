"""Commands about this machine and what lies on it: `nas doctor`, `clean`, `remove`, `rename`, `dashboard`."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import note, print_json, print_table
from nas.cli.options import JsonOption, StudyOption, command, offer
from nas.errors import ConfigError, StudyError
from nas.files import write_whole
from nas.paths import existing_study, remember_study
from nas.specs import AuditSpec, SearchSpec
from nas.specs.options import Given

if TYPE_CHECKING:
    from nas.report.machine import Health

NEEDS = {
    "result": "results, kept",
    "unfinished": "needed to resume, kept",
    "free": "not needed by any result",
    "cache": "recreated when needed",
}


@command(
    "doctor",
    """Show versions, devices, precision, disk space and data sets of this machine.

With --data, also audit images: duplicates and near duplicates within and across the splits, twins with two labels, damaged
images, sizes, compression, and what may be groups. Pairs are shown in nas-audit.html, in the working folder.
""",
    "nas doctor",
    "nas doctor --check",
    "nas doctor --data my-images --test hidden-test",
)
def doctor(
    given: Given[AuditSpec],
    *,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Test each device for at most 2 minutes: search, retrain, predict, too little memory, two workers, speed.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    from nas.report.machine import examine

    health = examine(Path(given.data_folder or "data"))
    audited = given.data_folder is not None and len(health.data_found) == 1  # no download folder
    if not audited and any(value for field, value in given.values.items() if field != "data_folder"):
        where = "--data names none" if given.data_folder is None else f"{given.data_folder} is a download folder"
        raise ConfigError(f"an audit needs a folder or file of images, but {where}", hint="nas doctor --data FOLDER --test TEST")
    report = asdict(health)
    if not as_json:
        print(f"python    {health.python}, {health.cores} cores, {health.machine}")
        print("packages  " + ", ".join(f"{name} {version}" for name, version in health.packages.items()))
        if health.git:
            print(f"checkout  {health.git}")
        for i, device in enumerate(health.devices):
            chosen = "  ← auto" if i == 0 else ""
            print(f"device    {device.name}: {device.model}, {device.precision}, because {device.reason}{chosen}")
        system = f" on {health.file_system}" if health.file_system else ""
        print(f"storage   {health.studies}{system}, SQLite {health.sqlite}; studies: {', '.join(health.studies_found) or 'none'}")
        print(f"cache     {health.cache}")
        print("disk      " + ", ".join(f"{left / 1e9:.0f} GB free in {path}" for path, left in health.free_bytes.items()))
        print("data      " + ", ".join(f"{name} ({where})" for name, where in health.data_found.items()))
        print("spaces    " + ", ".join(health.spaces))
    if audited:
        report["audit"] = _audit(given, quiet=as_json)
    for problem in health.problems:
        note(f"Problem:  {problem}")
    works = _check_devices(health, report if as_json else None) if check else True
    if as_json and not check:
        print_json(report)
    if health.problems or not works:
        sys.exit(1)


def _audit(given: Given[AuditSpec], quiet: bool) -> dict[str, Any]:
    """Prints it unless `quiet`, and writes the page. Returns it as data."""
    from nas.data.audit import audit
    from nas.display.terminal import TerminalDisplay
    from nas.report.audit import PAGE, class_table, findings, render_audit
    from nas.study.request import resolve_data

    values = dict(given.values)
    test = values.pop("test", None)
    with TerminalDisplay(quiet=quiet) as display:
        found, pictures = audit(resolve_data(SearchSpec(dataset="folder", **values), None), test, display.decoding)
    noted = list(findings(found))
    if not quiet:
        print(f"\nAudit of {found.data}, compared at {found.compared}×{found.compared} pixels\n")
        print_table(class_table(found))
        for text, advice in noted or [("nothing was found", "")]:
            print(f"\n{text[0].upper()}{text[1:]}." + (f"\nNext:  {advice}" if advice else ""))
    try:
        write_whole(PAGE, render_audit(found, pictures).encode(errors="replace"))
        note(f"\nPairs: {PAGE}")
    except OSError as error:
        note(f"\n{PAGE.absolute()} cannot be written: {error.strerror}")
    return {**asdict(found), "findings": [{"text": text, "next": advice} for text, advice in noted]}


def _check_devices(health: "Health", report: dict[str, Any] | None) -> bool:
    """Whether all of them work. `report`: what is printed as JSON, with them; None for a table."""
    from nas.report.device_check import REPORT, Row, as_table, check_devices

    def say(row: Row) -> None:
        note(f"{row.device}, {row.step}: {row.result} after {row.seconds:.0f} s")

    rows = check_devices(health, say)
    print_table(as_table(rows)) if report is None else print_json({**report, "check": rows})
    failed = [row for row in rows if row.passed is False]
    for row in failed:
        note(f"Problem:  {row.device}, {row.step}: {row.found}\nNext:     {row.advice}")
    note(f"Written to {REPORT}, without personal data. Attach it to a bug report.")
    return not failed


@command(
    "clean",
    """Show what uses disk space, and delete what no result needs.

That is: checkpoints of finished trainings, incomplete files of a crash, and decoded images of a folder that has changed. With
--cache also other decoded images; they are decoded again when needed.
""",
    "nas clean",
    "nas clean --yes",
)
def clean(
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without this, only show.")] = False,
    cache: Annotated[bool, typer.Option("--cache", help="Also delete decoded images. Stop all searches first.")] = False,
    as_json: JsonOption = False,
) -> None:
    from nas.report.machine import disk_use, free
    from nas.report.words import bytes_text

    items = disk_use()
    chosen = [item for item in items if item.need == "free" or (cache and item.need == "cache")]
    room = sum(item.bytes for item in chosen)
    if yes:
        try:
            freed = free(chosen)
        except OSError as error:
            raise StudyError(
                f"{error.filename} cannot be removed: {error.strerror}",
                hint="check its owner and permissions, then run the command again; other files may already be deleted",
            ) from None
    if as_json:
        print_json({"items": items, "freed": freed if yes else 0})
        return
    for item in items:
        mark = "  ← freed" if yes and item in chosen else ""
        print(f"{bytes_text(item.bytes):>10s}  {item.what}  ({NEEDS[item.need]}){mark}")
    if yes:
        print(f"Freed {bytes_text(freed)}.")
    elif room:
        print(f"Next:  nas clean --yes{' --cache' if cache else ''}   frees {bytes_text(room)}")
    else:
        print("Nothing to delete." if items else "There are no files yet.")


StudyArgument = Annotated[str, typer.Argument(help="Name of the study.", autocompletion=offer("study"), show_default=False)]


@command(
    "remove",
    "Delete a study: its folder and its rows in a PostgreSQL database. This cannot be undone.",
    "nas remove digits",
    "nas remove digits --yes",
)
def remove(
    study: StudyArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without this, only show what would be deleted.")] = False,
) -> None:
    from nas.report.machine import size_of
    from nas.report.words import bytes_text
    from nas.study.address import shown, study_address
    from nas.study.ownership import remove_study

    paths = existing_study(study)
    address, trials, networks = study_address(paths, None), paths.trials.glob("*/"), paths.retrained.glob("*/model.json")
    where = f"{paths.folder}{'' if address is None else f', and its rows in {shown(address)}'}"
    found = f"{len([*trials])} trials, {len([*networks])} retrained networks, {bytes_text(size_of([paths.folder]))}"
    if yes:
        remove_study(paths, note)
    print(f"{'Removed study' if yes else 'Study'} {study}: {found}, in {where}")
    if not yes:
        print(f"Next:  nas remove {study} --yes")


@command("rename", "Rename a study: its folder and its rows in a PostgreSQL database.", "nas rename digits small")
def rename(study: StudyArgument, name: Annotated[str, typer.Argument(help="The new name.", show_default=False)]) -> None:
    from nas.study.ownership import rename_study

    renamed = rename_study(existing_study(study), name, note)
    remember_study(renamed)
    print(f"Renamed study {study} to {name}: {renamed.folder}")


@command(
    "dashboard",
    "Open a study in optuna-dashboard, read-only, also during a search. Ctrl-C ends it.",
    "nas dashboard --open",
    "nas dashboard --study digits --port 9000",
)
def dashboard(
    study: StudyOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 allows other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0: any free port.", min=0, max=65535)] = 8080,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open a browser.")] = False,
) -> None:
    from nas.dashboard import serve

    def ready(address: str) -> None:
        print(address, flush=True)
        note("Ctrl-C ends it.")
        if open_browser:
            typer.launch(address)

    serve(existing_study(study), host, port, ready)
