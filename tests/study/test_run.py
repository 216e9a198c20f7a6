"""`run_search` before and around the coordinator: what is refused, what is taken from the study, what Ctrl-C does."""

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nas.config import Candidate, DataConfig
from nas.errors import BudgetError, ConfigError, DataError, DeviceError, NasError, StudyError
from nas.interrupts import suspended_by_signals
from nas.paths import StudyPaths
from nas.runs.select import find_subject
from nas.specs import SearchSpec
from nas.study.estimate import estimate_search
from nas.study.request import require_rankable, resolve_data, resolve_overrides, resolve_space, resolve_study
from nas.study.run import run_search
from nas.study.settings import Overrides, read_settings
from nas.study.storage import open_study
from nas.study.warm_start import find_starts
from tests.conftest import QuietDisplay


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"trials": 0}, ConfigError, "--trials"),
        ({"epochs": 0}, ConfigError, "--epochs"),
        ({"timeout": 0.0}, ConfigError, "--timeout"),
        ({"device": "cuda:77"}, DeviceError, "cuda:77"),
        ({"study": "../elsewhere"}, NasError, "name"),
        ({"space": "no-such-space"}, ConfigError, "no-such-space"),
        ({"dataset": "no-such-data"}, DataError, "no-such-data"),
        ({"max_params": "many"}, BudgetError, "many"),
        ({"max_params": "10"}, BudgetError, "the budget is 10"),
        ({"image_size": 64}, DataError, "--image-size"),
        ({"workers": 10_000}, ConfigError, "--workers 10000"),
    ],
)
@pytest.mark.parametrize("use", [run_search, estimate_search])
def test_a_request_that_means_nothing_is_refused_before_anything_is_made(
    tmp_path: Path, use: Callable[..., object], changes: dict[str, Any], kind: type[NasError], says: str
) -> None:
    request = SearchSpec(**{"space": "digits", "dataset": "digits", "device": "cpu", **changes})
    with pytest.raises(kind) as caught:
        use(request, QuietDisplay())
    assert says in caught.value.message
    assert not list(tmp_path.glob("studies/*"))


def test_without_a_word_everything_is_as_the_study_began(study: StudyPaths) -> None:
    stored = read_settings(study)
    request = SearchSpec(study="tiny")
    overrides = resolve_overrides(request, stored)
    assert overrides == stored.overrides
    assert resolve_space(request, study, stored, overrides).describe() == stored.parameters
    assert resolve_data(request, stored) == stored.data


def test_what_is_said_replaces_what_the_study_began_with(study: StudyPaths) -> None:
    stored = read_settings(study)
    request = SearchSpec(study="tiny", epochs=5, max_params="2k", train_subset=99, seed=4)
    overrides = resolve_overrides(request, stored)
    assert overrides == Overrides(epochs=5, max_params=2000, unmirrored=True)
    assert resolve_space(request, study, stored, overrides).epochs == 5
    assert resolve_data(request, stored) == stored.data.model_copy(update={"subset": 99, "seed": 4})
    request = SearchSpec(study="tiny", trial_compute=1e12, final_compute=1e14)
    overrides = resolve_overrides(request, stored)
    space = resolve_space(request, study, stored, overrides)
    config = resolve_study(request, space, stored, overrides)
    assert (config.trial_compute, config.final_compute) == (1e12, 1e14)
    config = resolve_data(SearchSpec(dataset="folder", data_folder="images"), None)
    assert config == DataConfig(dataset="folder", folder=str(Path.cwd() / "images"))


@pytest.mark.parametrize(
    ("trial_flop", "most_macs", "said"),
    [
        (None, 10**8, "--final-compute 0.3PFLOP needs --trial-compute"),
        (4e14, 10**8, "--final-compute 0.3PFLOP is less than --trial-compute 0.4PFLOP"),
        (1e13, None, "--final-compute 0.3PFLOP needs a limit of MACs"),
    ],
)
def test_what_cannot_be_ranked_for_a_final_training_is_refused(
    trial_flop: float | None, most_macs: int | None, said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        require_rankable(3e14, trial_flop, most_macs)
    assert refused.value.hint
    require_rankable(3e14, 1e13, 10**8)


def test_an_old_study_that_was_renamed_goes_on_and_gets_an_identity(study: StudyPaths) -> None:
    began = read_settings(study)
    with closing(sqlite3.connect(study.database)) as database, database:
        assert database.execute("DELETE FROM study_user_attributes WHERE key = 'identity'").rowcount == 1
    study.settings.write_text(began.model_copy(update={"identity": None, "data_order": None}).to_json())
    renamed = StudyPaths(study.folder.rename(study.folder.with_name("renamed")))
    result = run_search(SearchSpec(study="renamed", trials=2, finalists=0, device="cpu"), QuietDisplay())
    assert (result.progress.trained, result.progress.trained_here) == (2, 0)
    after = read_settings(renamed)
    assert after.identity is not None
    assert after.model_copy(update={"identity": None}) == began.model_copy(update={"identity": None})
    assert open_study(renamed).user_attrs["identity"] == after.identity


def test_a_candidate_that_was_edited_is_trained_by_no_command(study: StudyPaths) -> None:
    file = study.trial(0).candidate
    candidate = Candidate.from_json(file.read_bytes())
    stages = tuple(stage.model_copy(update={"channels": 2048}) for stage in candidate.arch.stages)
    file.write_text(candidate.model_copy(update={"arch": candidate.arch.model_copy(update={"stages": stages})}).to_json())
    trained = SearchSpec(study="tiny", trials=2, finalists=2, finalist_epochs=2, device="cpu")
    for use in (
        lambda: find_subject(study, "0"),
        lambda: find_starts("study:tiny", read_settings(study)),
        lambda: run_search(trained, QuietDisplay()),
    ):
        with pytest.raises(
            StudyError, match=r"candidate.json is not the network of trial 0: the study recorded .* the file has .*2048"
        ):
            use()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_suspends_and_the_second_ends(number: int) -> None:
    asked: list[bool] = []
    before = signal.getsignal(number)
    with suspended_by_signals(lambda: asked.append(True)):
        os.kill(os.getpid(), number)
        assert asked == [True]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before
