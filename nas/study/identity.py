"""Finds the study of a folder in a database, by a random identity in `study.json` and in the database. A renamed folder keeps its
trials, and another study's database is refused. Opens nothing."""

import json
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.storages import BaseStorage

from nas.errors import StudyError
from nas.paths import StudyPaths
from nas.study.address import shown

FINALISTS = " finalists"
"""Ends the name of the sibling study with the finalists' trainings. No folder's name ends so by accident, and the dashboard shows
it beside the study."""


def name_of_study(storage: BaseStorage, paths: StudyPaths, address: sqlalchemy.URL | None) -> str | None:
    """The name of this folder's study in its database: the name of the folder when the study began. None if the database does not
    hold it.

    Raises StudyError for the database of another study, for a database without a study that has begun, and for a study in
    PostgreSQL whose folder was renamed, because its lock and the rows of its ledger use the name.
    """
    folder = _read_json(paths.settings)
    there = storage.get_all_studies()
    siblings = {one.study_name + FINALISTS for one in there}
    searches = [one for one in there if one.study_name not in siblings]
    mine = [one for one in searches if folder.get("identity") and one.user_attrs.get("identity") == folder["identity"]]
    if address is not None and mine and mine[0].study_name != paths.name:
        raise StudyError(
            f"{database_name(paths, address)} holds the study of the folder {paths.folder} as {mine[0].study_name!r}",
            hint=f"rename the folder back to {mine[0].study_name}, then:  nas rename {mine[0].study_name} NEW",
        )
    named = [one for one in searches if one.study_name == paths.name]
    found = mine or named or (searches if address is None else [])
    if len(found) > 1:
        raise StudyError(
            f"{paths.database} holds {len(found)} studies, and it is unclear which is {paths.name!r}: "
            f"{', '.join(sorted(repr(one.study_name) for one in found))}",
            hint="rename the study's folder to one of these names",
        )
    if not found:
        if paths.settings.is_file() and (address is not None or any(paths.trials.glob("*/"))):
            raise missing(paths, address)
        return None
    if reason := _of_another_study(folder, found[0].user_attrs):
        raise StudyError(
            f"{database_name(paths, address)} belongs to another study than {paths.settings}: {reason}",
            hint="restore the database and study.json together from a copy, or start again under another name with --study NAME",
        )
    return found[0].study_name


def _of_another_study(folder: dict[str, Any], database: dict[str, Any]) -> str | None:
    """How folder and database contradict each other; without an identity, in older studies, by the recorded settings."""
    pairs: list[tuple[str, Any, Any]] = [("identity", folder.get("identity"), database.get("identity"))]
    told = database.get("settings") or {}
    if None in pairs[0]:
        pairs = [(key, folder.get(key), told.get(key)) for key in ("space", "seed", "data_fingerprint", "parameters")]
    else:  # an edited study.json would give the stored values another meaning
        pairs.append(("parameters", folder.get("parameters"), told.get("parameters")))
        here, there = ((one.get("study") or {}).get("metric") for one in (folder, told))
        pairs.append(("metric", here, there))
    differ = [what.replace("_", " ") for what, one, other in pairs if None not in (one, other) and one != other]
    return f"they differ in {', '.join(differ)}" if differ else None


def _read_json(file: Path) -> dict[str, Any]:
    """Empty if it cannot be read; code that needs the settings reports the reason."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def missing(paths: StudyPaths, address: sqlalchemy.URL | None) -> StudyError:
    return StudyError(
        f"the study {paths.name!r} has a folder, {paths.folder}, but is not in {database_name(paths, address)}",
        hint="restore the database from a copy, or start again under another name with --study NAME",
    )


def database_name(paths: StudyPaths, address: sqlalchemy.URL | None) -> str:
    return str(paths.database) if address is None else f"the database {shown(address)}"
