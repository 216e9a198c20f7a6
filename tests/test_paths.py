from pathlib import Path

import pytest

from nas.errors import DataError, StudyError
from nas.paths import cache_folder, existing_study, known_studies, remember_study, studies_folder, study_paths


def make_study(name: str) -> None:
    folder = studies_folder() / name
    folder.mkdir(parents=True)
    (folder / "study.json").write_text("{}")


def refusal(name: str | None) -> StudyError:
    with pytest.raises(StudyError) as refused:
        existing_study(name)
    return refused.value


def test_folders_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_STUDIES", "elsewhere")
    monkeypatch.setenv("NAS_CACHE", "decoded")
    assert (studies_folder(), cache_folder()) == (Path("elsewhere"), Path("decoded"))


@pytest.mark.parametrize("unset", ["empty", "missing"])
def test_folders_without_an_environment_are_the_usual_ones(unset: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("NAS_STUDIES", "NAS_CACHE", "XDG_CACHE_HOME"):
        if unset == "empty":
            monkeypatch.setenv(name, "")
        else:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (studies_folder(), cache_folder()) == (Path("studies"), tmp_path / ".cache" / "nas")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "nas"


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "/root", "a\\b", "what?", "a:b", "../up"])
def test_name_that_is_no_folder_name_is_refused(name: str) -> None:
    with pytest.raises(StudyError) as refused:
        study_paths(name)
    assert refused.value.message == (
        f"the name of a study must be a folder name without separators or a leading dot, but is {name!r}"
    )


def test_only_folders_that_were_founded_count_as_studies() -> None:
    make_study("b")
    make_study("a")
    (studies_folder() / "notes").mkdir()
    assert known_studies() == ["a", "b"]


def test_unknown_study_is_refused_with_the_nearest_and_all_others() -> None:
    make_study("digits-digits")
    make_study("resnet-cifar10")
    error = refusal("resnet-cifar")
    assert error.message == (
        f"there is no study 'resnet-cifar' under {studies_folder()}. Did you mean 'resnet-cifar10'? "
        "Choices: digits-digits, resnet-cifar10."
    )
    assert error.hint == "nas list shows the studies; nas search creates one"


def test_where_no_study_is_named_it_is_the_one_used_last() -> None:
    make_study("a")
    assert existing_study(None).name == "a", "the only one"
    make_study("b")
    remember_study(study_paths("b"))
    assert existing_study(None).name == "b"
    assert existing_study("a").name == "a"
    (studies_folder() / ".last").write_text("c\n")
    error = refusal(None)
    assert error.message == "no study is named, and none was used here before. Choices: a, b."
    assert error.hint == "add --study NAME"
    (studies_folder() / ".last").unlink()
    (studies_folder() / ".last").mkdir()
    remember_study(study_paths("a"))  # what cannot be remembered fails nothing


def test_where_no_study_is_named_and_there_is_none_the_next_step_makes_one() -> None:
    error = refusal(None)
    assert refusal("mine").message == f"there is no study 'mine' under {studies_folder()}."
    assert error.message == f"no study is named, and none was used here before. There is none under {studies_folder()}."
    assert error.hint == "nas search --space digits --dataset digits"


def test_a_user_without_a_home_is_told_to_name_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("NAS_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(DataError) as refused:
        cache_folder()
    assert "HOME is not set" in refused.value.message
    assert refused.value.hint == "set a folder: export NAS_CACHE=FOLDER"
