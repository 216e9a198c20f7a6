"""Which database a study is kept in, and that nobody learns its password from what is shown or stored."""

import sys

import pytest

from nas.errors import StudyError
from nas.paths import StudyPaths
from nas.study.address import parse_address, record_address, redacted, shown, study_address
from nas.study.settings import Environment

SECRET = "hunter2"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_way_to_write_postgresql_means_the_driver_that_is_installed(scheme: str) -> None:
    url = parse_address(f"{scheme}://me:{SECRET}@server:5433/nas?sslmode=require\n")
    assert url.drivername == "postgresql+psycopg"
    assert url.password == SECRET
    assert shown(url) == "postgresql://me@server:5433/nas?sslmode=require"


REFUSED = {
    "another database": (f"mysql://me:{SECRET}@server/nas", "is a 'mysql' database"),
    "SQLite elsewhere": ("sqlite:///elsewhere.db", "none for SQLite in the study's folder"),
    "another driver": (f"postgresql+psycopg2://me:{SECRET}@server/nas", "is a 'postgresql\\+psycopg2'"),
    "no URL": (f"host=server password={SECRET}", "is not a database URL: 'host=server password=\\*\\*\\*'"),
    "a port in words": (f"postgresql://me:{SECRET}@server:five/nas", "is not a database URL: 'postgresql://…'"),
    "a password without its server": (f"postgresql://me:{SECRET}", "is not a database URL: 'postgresql://…'"),
    "an @ in the password": (f"postgresql://me:a@{SECRET}@server/nas", "has more than one @: 'postgresql://me:\\*\\*\\*@server"),
    "an @ behind a slash": (f"postgresql://me:a@b/{SECRET}@server/nas", "has more than one @"),
    "an @ behind a question mark": (f"postgresql://me:a@b?{SECRET}@server/nas", "has more than one @"),
    "nothing": ("", "is not a database URL: ''"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_anything_else_is_refused_without_showing_a_password(case: str) -> None:
    text, message = REFUSED[case]
    with pytest.raises(StudyError, match=message) as caught:
        parse_address(text)
    assert str(caught.value).startswith("--storage ")
    assert "postgresql://user@host/database" in f"{caught.value} {caught.value.hint}" or "%40" in str(caught.value.hint)
    assert SECRET not in f"{caught.value} {caught.value.hint}"


SHOWN = {
    f"postgresql://me:{SECRET}@server/nas": "postgresql://me:***@server/nas",
    f"--storage=postgresql://me:{SECRET}@server/nas": "--storage=postgresql://me:***@server/nas",
    f"postgresql://:{SECRET}@server": "postgresql://:***@server",
    f"postgresql://me:a@b:{SECRET}@server/nas": "postgresql://me:***@server/nas",
    f"postgresql://me:a {SECRET}/?#@server/nas": "postgresql://me:***@server/nas",
    f"postgresql://me@server/nas?password={SECRET}&sslmode=require": "postgresql://me@server/nas?password=***&sslmode=require",
    f"postgresql://me@server/nas?sslmode=require&sslpassword={SECRET}": "postgresql://me@server/nas?sslmode=require&sslpassword=***",
    f"host=server PASSWORD = '{SECRET} x'": "host=server PASSWORD = ***",
    "postgresql://me@server/nas": "postgresql://me@server/nas",
    "postgresql://server:5432/nas": "postgresql://server:5432/nas",
    "--trials=12": "--trials=12",
    "ray://head:10001": "ray://head:10001",
}


@pytest.mark.parametrize("text", SHOWN)
def test_passwords_are_hidden_and_nothing_else(text: str) -> None:
    assert redacted(text) == SHOWN[text]


@pytest.mark.parametrize("form", ["--storage {}", "--storage={}"])
@pytest.mark.parametrize("url", ["postgresql://me:{}@server/nas", "postgresql://me@server/nas?password={}"])
def test_the_recorded_command_has_no_password(form: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["nas", "search", *form.format(url.format(SECRET)).split(), "--trials", "3"])
    command = Environment.now().command
    assert SECRET not in command
    assert url.format("***") in command
    assert command.endswith("--trials 3")


def test_a_study_remembers_its_database_without_the_password(paths: StudyPaths) -> None:
    assert study_address(paths, None) is None, "it lies in its folder"
    record_address(paths, parse_address(f"postgres://me:{SECRET}@server/nas?sslmode=require&password={SECRET}"))
    assert paths.storage_url.read_text() == "postgresql://me@server/nas?sslmode=require\n"
    assert shown(study_address(paths, None)) == "postgresql://me@server/nas?sslmode=require"


def test_the_same_database_may_be_named_again_in_other_words(paths: StudyPaths) -> None:
    record_address(paths, parse_address("postgresql://me@server/nas"))
    url = study_address(paths, f"postgres://me:{SECRET}@server:5432/nas?sslmode=require")
    assert url.password == SECRET
    assert study_address(paths, "postgresql:///nas?host=server&user=me") is not None


@pytest.mark.parametrize(
    "other",
    [
        "postgresql://me:{}@elsewhere/nas",
        "postgresql://me:{}@server/other",
        "postgresql://you:{}@server/nas",
        "postgresql://me:{}@server:6432/nas",
    ],
)
def test_another_database_is_refused_with_both_named(paths: StudyPaths, other: str) -> None:
    record_address(paths, parse_address("postgresql://me@server/nas"))
    with pytest.raises(StudyError) as caught:
        study_address(paths, other.format(SECRET))
    assert "in postgresql://me@server/nas," in caught.value.message
    assert other.replace(":{}@", "@") in caught.value.message
    assert "--study NAME" in str(caught.value.hint)
    assert SECRET not in f"{caught.value} {caught.value.hint}"


def test_a_study_in_its_folder_cannot_go_on_in_a_database(paths: StudyPaths) -> None:
    paths.folder.mkdir(parents=True)
    paths.settings.write_text("{}")
    with pytest.raises(StudyError, match=r"SQLite, in .*study\.db, and cannot continue in postgresql://me@server/nas"):
        study_address(paths, f"postgresql://me:{SECRET}@server/nas")


def test_a_record_that_means_nothing_is_named(paths: StudyPaths) -> None:
    paths.folder.mkdir(parents=True)
    paths.storage_url.write_text("rubbish")
    with pytest.raises(StudyError, match=r"storage\.url is not a database URL"):
        study_address(paths, None)
    paths.storage_url.write_bytes(b"\xff\xfe")
    with pytest.raises(StudyError, match=r"storage\.url, the file with the URL of the database, cannot be read"):
        study_address(paths, None)


def test_the_password_may_come_from_the_environment(paths: StudyPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    record_address(paths, parse_address("postgresql://me@server/nas"))
    monkeypatch.setenv("NAS_STORAGE", f"postgres://me:{SECRET}@server:5432/nas")
    for given in (None, "postgresql://me@server/nas"):
        url = study_address(paths, given)
        assert url.password == SECRET
    own = study_address(paths, "postgresql://me:own@server/nas")
    assert own.password == "own", "the command line's counts"


@pytest.mark.parametrize("elsewhere", ["me:{}@server/other", "me:{}@elsewhere/nas", "you:{}@server/nas"])
def test_the_password_of_another_database_is_none(paths: StudyPaths, monkeypatch: pytest.MonkeyPatch, elsewhere: str) -> None:
    record_address(paths, parse_address("postgresql://me@server/nas"))
    monkeypatch.setenv("NAS_STORAGE", "postgresql://" + elsewhere.format(SECRET))
    url = study_address(paths, None)
    assert url.password is None
