"""Where a study's trials are stored: which URLs mean a PostgreSQL database, which URL a study has recorded in its folder, where
the password comes from, and how a URL is shown without it. Opens nothing."""

import os
import re

import sqlalchemy

from nas.errors import StudyError
from nas.files import write_whole
from nas.paths import StudyPaths

SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
DRIVER = "postgresql+psycopg"
EXAMPLE = "postgresql://user@host/database"
PASSWORD_VARIABLE = "NAS_STORAGE"  # the whole URL with its password, for a study that recorded the same database without one

# Up to the last @: a password may contain one that is not encoded.
_IN_FRONT = re.compile(r"(://[^:/?#@]*):.*@", re.DOTALL)
_IN_OPTIONS = re.compile(r"([\w%]*(?:password|secret|scram_client_key|scram_server_key)\s*=\s*)[^&]*", re.IGNORECASE | re.DOTALL)
_SECRET = re.compile(r"password|secret|scram_client_key|scram_server_key", re.IGNORECASE)


def redacted(text: str) -> str:
    """An argument or a message with `***` for each password; if it is unclear where a password ends, too much is hidden."""
    return _IN_OPTIONS.sub(r"\1***", _IN_FRONT.sub(r"\1:***@", text))


def parse_address(text: str, *, source: str = "--storage") -> sqlalchemy.URL:
    """Raises StudyError for anything but the URL of a PostgreSQL database."""
    text = text.strip()
    if text.count("@") > 1:  # the text after the first one would be taken for the name of a host, and be shown
        raise StudyError(
            f"{source} has more than one @: {redacted(text)!r}",
            hint="write an @ in a password as %40, and quote other special characters in the same way",
        )
    try:
        url = sqlalchemy.make_url(text)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        scheme, separator, _ = text.partition("://")  # the rest may contain a password
        what = f"{scheme}://…" if separator else redacted(text)
        raise StudyError(f"{source} is not a database URL: {what!r}", hint=f"write it as {EXAMPLE}") from None
    if url.drivername not in SCHEMES:
        raise StudyError(
            f"{source} is a {url.drivername!r} database, which cannot store a study. "
            f"Choices: {EXAMPLE}, or none for SQLite in the study's folder.",
            hint=f"--storage {EXAMPLE}, or leave it out",
        )
    return url.set(drivername=DRIVER)


def shown(url: sqlalchemy.URL) -> str:
    """The URL without its secrets."""
    # Built anew: `URL.set(password=None)` does not remove the password.
    options = {key: value for key, value in url.query.items() if not _SECRET.search(key)}
    public = sqlalchemy.URL.create("postgresql", url.username, None, url.host, url.port, url.database, options)
    return public.render_as_string(hide_password=False)


def _database_of(url: sqlalchemy.URL) -> tuple[str, ...]:
    """User, host, port and database; the rest of a URL only says how to connect."""
    parts = {"user": url.username, "host": url.host, "port": url.port, "dbname": url.database}
    found = {name: value or url.query.get(name) for name, value in parts.items()}
    return tuple(str(value or "") for value in (found | {"port": found["port"] or 5432}).values())


def recorded_address(paths: StudyPaths) -> sqlalchemy.URL | None:
    """None for SQLite in the study's folder."""
    try:
        text = paths.storage_url.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(
            f"{paths.storage_url}, the file with the URL of the database, cannot be read: {error}",
            hint=f"write the URL of the study's database into it, without a password: {EXAMPLE}",
        ) from None
    return parse_address(text, source=str(paths.storage_url))


def record_address(paths: StudyPaths, url: sqlalchemy.URL) -> None:
    write_whole(paths.storage_url, (shown(url) + "\n").encode())


def study_address(paths: StudyPaths, given: str | None) -> sqlalchemy.URL | None:
    """The study's database, with its password unless libpq finds that; None for SQLite in the study's folder.

    Raises StudyError if `given` is not the database that the study began with.
    """
    recorded = recorded_address(paths)
    if given is None:
        return None if recorded is None else _with_password(recorded)
    wanted = parse_address(given)
    if recorded is None and not paths.settings.is_file():
        return _with_password(wanted)
    if recorded is None or _database_of(recorded) != _database_of(wanted):
        before = f"SQLite, in {paths.database}" if recorded is None else shown(recorded)
        raise StudyError(
            f"the study {paths.name!r} has its trials in {before}, and cannot continue in {shown(wanted)}",
            hint=f"leave out --storage, or use another name with --study NAME; if the database was moved, "
            f"write its new URL into {paths.storage_url}",
        )
    return _with_password(wanted)


def _with_password(url: sqlalchemy.URL) -> sqlalchemy.URL:
    elsewhere = os.environ.get(PASSWORD_VARIABLE)
    if url.password is not None or "password" in url.query or not elsewhere:
        return url
    other = parse_address(elsewhere, source=f"the environment variable {PASSWORD_VARIABLE}")
    if _database_of(other) != _database_of(url):
        return url
    password = other.password or other.query.get("password")
    return url if password is None else url.set(password=str(password))
