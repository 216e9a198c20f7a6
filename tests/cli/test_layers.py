"""The house's plan, enforced: who may import whom, who may know Optuna and torch, how long a file may be."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import nas

PACKAGE = Path(nas.__file__).parent
# Lowest first: a file imports from its own room and from those before it.
ROOMS = (
    "errors",
    "files",
    "logs",
    "interrupts",
    "cores",
    "paths",
    "device",
    "config",
    "models",
    "budget",
    "space",
    "data",
    "foreign",
    "train",
    "jobs",
    "specs",
    "study",
    "runs",
    "predict",
    "export",
    "report",
    "display",
    "dashboard",
    "cli",
    "api",
)
MAY_IMPORT_OPTUNA = {
    "nas/space/space.py",
    "nas/space/space_file.py",
    "nas/study/owned.py",
    "nas/study/storage.py",
    "nas/study/ownership.py",
    "nas/study/run.py",
    "nas/study/source.py",
    "nas/study/drawing.py",
    "nas/study/outcomes.py",
    "nas/space/feasibility.py",
    "nas/study/finalists.py",
    "nas/study/history.py",
    "nas/study/identity.py",
    "nas/study/optuna_private.py",
    "nas/study/trials.py",
    "nas/dashboard/view.py",
    "nas/dashboard/__init__.py",
    "nas/study/pruners.py",
    "nas/study/samplers.py",
    "nas/study/warm_start.py",
}
DOORS = {"__main__", "__init__"}
"""They lead into the last rooms."""
OPENS_STORAGES = ("nas/study/storage.py", "nas/study/owned.py")
MOST_LINES = 430

FILES = sorted(PACKAGE.rglob("*.py"))


def label(path: Path) -> str:
    return path.relative_to(PACKAGE.parent).as_posix()


@pytest.fixture(params=FILES, ids=label)
def file(request: pytest.FixtureRequest) -> Path:
    return request.param


@dataclass(frozen=True)
class Import:
    module: str
    """Dotted, as far as it can be a module: `nas.study.run`, `optuna.trial`."""
    line: int


def imports_of(path: Path) -> Iterator[Import]:
    """Every import of a file, those within functions too, relative ones spelt out."""
    package = path.relative_to(PACKAGE.parent).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(name.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for name in node.names:  # `from nas import config` imports nas.config
                yield Import(f"{module}.{name.name}", node.lineno)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_room_has_its_place_in_the_order() -> None:
    rooms = {room_of(path) for path in FILES} - DOORS
    assert rooms <= set(ROOMS), f"say in ROOMS, and on the design's page, where {rooms - set(ROOMS)} stand"


def test_a_file_imports_only_from_rooms_above_it(file: Path) -> None:
    room = room_of(file)
    if room in DOORS:
        return
    allowed = set(ROOMS[: ROOMS.index(room) + 1]) if room in ROOMS else set()
    for found in imports_of(file):
        package, _, inner = found.module.partition(".")
        if package == "nas" and inner and inner != "__version__":
            other = inner.partition(".")[0]
            assert other in allowed, f"{label(file)}:{found.line} imports {found.module}, a room below {room}"


def test_configurations_know_neither_torch_nor_optuna() -> None:
    files = (PACKAGE / "config").glob("*.py")
    found = {item.module.partition(".")[0] for file in files for item in imports_of(file)}
    assert not found & {"torch", "torchvision", "optuna", "numpy"}


def test_only_the_search_and_the_space_know_optuna(file: Path) -> None:
    if label(file) in MAY_IMPORT_OPTUNA:
        return
    found = [item for item in imports_of(file) if item.module.partition(".")[0].startswith("optuna")]
    assert not found, f"{label(file)}:{found[0].line} imports {found[0].module}"


def test_who_may_import_optuna_exists_and_does() -> None:
    for name in MAY_IMPORT_OPTUNA:
        imported = {item.module.partition(".")[0] for item in imports_of(PACKAGE.parent / name)}
        assert imported & {"optuna", "optuna_dashboard"}, f"{name} needs no leave"


@pytest.mark.parametrize("door", ["nas/jobs/local.py", "nas/jobs/ray/executor.py", "nas/jobs/crew.py"])
def test_workers_and_who_runs_them_know_neither_optuna_nor_a_database(door: str) -> None:
    """Whatever they import imports, either."""
    files = {label(path): path for path in FILES}
    seen, left = set(), [door]
    while left:
        name = left.pop()
        seen.add(name)
        for found in imports_of(files[name]):
            outside = found.module.partition(".")[0]
            assert outside not in ("optuna", "sqlalchemy", "sqlite3", "psycopg"), f"{name}:{found.line} imports {found.module}"
            parts = found.module.split(".")
            for end in range(1, len(parts) + 1):
                module = "/".join(parts[:end])
                # The package's own door imports nothing before it is asked to.
                left += {f"{module}.py", f"{module}/__init__.py"} & files.keys() - seen - {"nas/__init__.py"}
    assert "nas/jobs/messages.py" in seen


def test_only_two_files_open_a_storage(file: Path) -> None:
    if label(file) in OPENS_STORAGES:
        return
    nodes = list(ast.walk(ast.parse(file.read_text())))
    derived_from = [base for node in nodes if isinstance(node, ast.ClassDef) for base in node.bases]  # which opens none
    for node in (node for node in nodes if node not in derived_from):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        opens = name in ("create_study", "load_study", "delete_study", "RDBStorage", "JournalStorage", "create_engine")
        assert not opens, f"{label(file)}:{node.lineno} uses {name}"
        if isinstance(node, ast.Attribute) and node.attr == "connect" and isinstance(node.value, ast.Name):
            assert node.value.id != "sqlite3", f"{label(file)}:{node.lineno} opens a database"


def test_a_file_is_one_sitting(file: Path) -> None:
    lines = file.read_text().count("\n")
    assert lines <= MOST_LINES, f"{label(file)} has {lines} lines; split it by what its parts own"


def test_every_file_says_what_it_owns(file: Path) -> None:
    assert ast.get_docstring(ast.parse(file.read_text())), f"{label(file)} has no docstring"


def test_there_is_no_drawer_for_odds_and_ends() -> None:
    assert not [label(path) for path in FILES if path.stem in ("utils", "util", "helpers", "common", "misc")]
