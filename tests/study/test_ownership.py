"""The lock of a study in its folder, shared with no other coordinator, living or dead."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas.errors import StudyError
from nas.paths import StudyPaths
from nas.runs.context import locked
from nas.study.ownership import is_led, remove_study, rename_study
from nas.study.storage import open_study, owned_study
from tests.study.conftest import led, own

HOLD = """
import os, sys
from pathlib import Path
from nas.errors import StudyError
from nas.paths import StudyPaths
from nas.study.ownership import own_study
print("ready", flush=True)
sys.stdin.readline()
try:
    with own_study(StudyPaths(Path(sys.argv[1])), os.environ.get("NAS_TEST_URL"), note=print, stop_requested=lambda: False):
        print("held", flush=True)
        sys.stdin.readline()
except StudyError as error:
    print(error, flush=True)
"""


Process = subprocess.Popen[str]


def start(paths: StudyPaths, url: str | None = None) -> Process:
    """Another process that waits for a line to become the study's coordinator, and for another to end."""
    environment = os.environ | ({} if url is None else {"NAS_TEST_URL": url})
    command = [sys.executable, "-c", HOLD, str(paths.folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert heard(process) == "ready"
    return process


def heard(process: Process) -> str:
    return process.stdout.readline().rstrip("\n")


def say(process: Process) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


def race(one: Process, other: Process) -> tuple[Process, str]:
    """Both become the coordinator at once: who does, and what the other is told."""
    say(one)
    say(other)
    answers = {process: heard(process) for process in (one, other)}
    winner, loser = sorted(answers, key=lambda process: answers[process] != "held")
    assert answers[winner] == "held", answers
    say(winner)
    assert [winner.wait(), loser.wait()] == [0, 0]
    return winner, answers[loser]


@pytest.fixture
def holder(paths: StudyPaths) -> Iterator[Process]:
    with start(paths) as process:
        say(process)
        assert heard(process) == "held"
        yield process
        process.kill()


def test_a_second_coordinator_is_refused_and_a_dead_one_is_none(paths: StudyPaths, holder: Process, tmp_path: Path) -> None:
    with pytest.raises(StudyError) as caught, own(paths):
        pass
    assert f"the study 'mine' is being searched by process {holder.pid} on " in caught.value.message
    assert "--study" in str(caught.value.hint)
    with own(StudyPaths(tmp_path / "studies" / "another")):
        pass  # other studies are not concerned
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with own(paths):
        held = json.loads((paths.folder / "study.holder.json").read_text())
        assert held["pid"] == os.getpid()


def test_of_two_that_found_a_study_at_once_one_wins_and_the_other_is_told(paths: StudyPaths) -> None:
    with start(paths) as one, start(paths) as other:
        assert race(one, other)[1].startswith("the study 'mine' is being searched by ")
    with own(paths) as storage:
        assert owned_study(storage, paths).get_trials() == []


def test_the_lock_is_free_again_after_use_and_after_an_error(paths: StudyPaths) -> None:
    paths.database.mkdir(parents=True)
    with pytest.raises(StudyError, match=r"study\.db cannot be opened"), own(paths):
        pass
    paths.database.rmdir()
    with pytest.raises(ZeroDivisionError), own(paths):
        raise ZeroDivisionError
    with own(paths):
        for _ in range(2):  # a refusal does not open it
            with pytest.raises(StudyError), own(paths):
                pass
    with own(paths):
        pass


def test_whether_it_is_being_searched_can_be_seen_without_disturbing_it(paths: StudyPaths) -> None:
    assert is_led(paths) is False
    assert not paths.folder.exists(), "who looks makes nothing"
    with own(paths):
        held = (paths.folder / "study.holder.json").read_text()
        assert is_led(paths) is True
        assert (paths.folder / "study.holder.json").read_text() == held
    assert is_led(paths) is False
    with own(paths):
        pass


def test_who_holds_it_need_not_be_known(paths: StudyPaths) -> None:
    with own(paths):
        for content in ("no JSON", "[]", "{}"):
            (paths.folder / "study.holder.json").write_text(content)
            with pytest.raises(StudyError, match="another process"), own(paths):
                pass


def test_a_folder_that_cannot_be_made_is_a_mistake_that_can_be_mended(paths: StudyPaths) -> None:
    paths.folder.parent.write_text("a file, where the folder of all studies should be")
    with pytest.raises(StudyError, match=r"cannot be written: (Not a directory|File exists)") as caught, own(paths):
        pass
    assert "NAS_STUDIES" in str(caught.value.hint)


def test_a_study_of_this_folder_cannot_be_founded_in_a_database_meanwhile(
    paths: StudyPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.study.ownership.FOUNDING_SECONDS", 0.1)
    with own(paths), pytest.raises(StudyError, match="is being searched by"), own(paths, "postgresql://me@127.0.0.1/nas"):
        pass


def test_a_renamed_study_keeps_its_trials_and_a_removed_one_is_gone(
    paths: StudyPaths, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NAS_STUDIES", str(paths.folder.parent))
    with led(paths) as study:
        study.tell(study.ask(), 0.5)
    assert "A new study created" not in capfd.readouterr().err
    (paths.folder.parent / "there").mkdir()
    with pytest.raises(StudyError, match="there already exists"):
        rename_study(paths, "there", print)
    renamed = rename_study(paths, "other", print)
    assert renamed == StudyPaths(paths.folder.parent / "other")
    assert not paths.folder.exists()
    assert [trial.value for trial in open_study(renamed).trials] == [0.5]
    remove_study(renamed, print)
    assert [folder.name for folder in paths.folder.parent.iterdir()] == ["there"]


def test_a_study_that_is_searched_or_trained_is_neither_removed_nor_renamed(
    paths: StudyPaths, holder: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_STUDIES", str(paths.folder.parent))
    for change in (lambda: remove_study(paths, print), lambda: rename_study(paths, "other", print)):
        with pytest.raises(StudyError, match="the study 'mine' is being searched by process"):
            change()
    say(holder)  # which ends it
    holder.wait()
    run = paths.retrained / "a-run"
    with locked([run]), pytest.raises(StudyError, match=f"{run} of study 'mine' is being trained by another process"):
        remove_study(paths, print)
    assert run.is_dir()
