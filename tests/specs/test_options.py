"""How an option's text is read, what has to be said again, and what functions take."""

import inspect
from pathlib import Path

import pytest

from nas.errors import ConfigError
from nas.paths import StudyPaths
from nas.specs import AblateSpec, BaselineSpec, PredictSpec, SearchSpec
from nas.specs.options import Given, Option, options_of, parse_duration, parse_seeds, parse_validation, said_again, with_options


def keyword(known: Option) -> inspect.Parameter:
    return inspect.Parameter(known.name, inspect.Parameter.KEYWORD_ONLY, default=known.default)


TIMES = {
    "90": 90,
    "90s": 90,
    "15m": 900,
    "2h": 7200,
    "1h30m": 5400,
    "1h30m15s": 5415,
    "1.5h": 5400,
    "0.5s": 0.5,
    " 90s ": 90,
    "0": 0,
}


def test_time_is_read() -> None:
    assert {text: parse_duration(text) for text in TIMES} == TIMES
    assert parse_duration(12.5) == 12.5


def test_validation_is_a_number_or_a_share() -> None:
    assert [parse_validation(said) for said in ("5000", 5000, "0.1", 0.1, "5_000.0", 1)] == [5000, 5000, 0.1, 0.1, 5000, 1]
    for said in ("", "many", "nan", "inf", "-5", 0, "1.5", "10%"):
        with pytest.raises(ConfigError, match="--validation takes a number of training images"):
            parse_validation(said)


@pytest.mark.parametrize("text", ["", " ", "soon", "-5", "1d", "h", "5 m", "1m30h", "1:30", "1h 30m", "inf", "1e3"])
def test_invalid_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_duration(text)
    assert refused.value.message == f"invalid time {text!r}"


@pytest.mark.parametrize(
    ("seeds", "first", "read"),
    [("3", 0, (0, 1, 2)), ("3", 4, (4, 5, 6)), (2, 0, (0, 1)), ("0,3,4", 0, (0, 3, 4)), ([7], 0, (7,)), ((1, 5), 0, (1, 5))],
)
def test_seeds_are_how_many_or_which(seeds: int | str | list[int], first: int, read: tuple[int, ...]) -> None:
    assert parse_seeds(seeds, first) == read


@pytest.mark.parametrize(
    ("seeds", "first", "problem"),
    [
        ("0", 0, "--seeds takes a number of seeds or a list of seeds, but got '0'"),
        ("1,2", 3, "--seed 3 contradicts --seeds 1,2"),
        ([1, 1], 0, "--seeds 1,1 repeats 1: the same seed would train the same network again"),
    ],
)
def test_invalid_seeds_are_refused(seeds: str | list[int], first: int, problem: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_seeds(seeds, first)
    assert refused.value.message == problem


def test_what_a_study_does_not_remember_is_said_again() -> None:
    assert said_again(SearchSpec(study="mine", trials=7, epochs=3, max_params="5M", storage="postgresql://host/db")) == ""
    spec = SearchSpec(
        gpus=0, workers=2, device="cpu", ray="auto", cpus_per_worker=0.5, gpus_per_worker=1.0, threads=4, flop=4.2e14
    )
    said = said_again(spec)
    assert said.split(" --")[1:] == [
        *(
            "compute 0.42PFLOP",
            "gpus 0",
            "workers 2",
            "ray auto",
            "gpus-per-worker 1",
            "cpus-per-worker 0.5",
            "device cpu",
            "threads 4",
        )
    ]


def test_options_are_read_and_what_is_not_given_keeps_its_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def run(given: Given[BaselineSpec], *, like: str = "7") -> BaselineSpec:
        return given.build(paths=StudyPaths(tmp_path), like=like)

    call = with_options(run, keyword)
    assert call() == BaselineSpec(StudyPaths(tmp_path), like="7")
    spec = call(networks="net.py:Net", seeds="2", timeout="5m", data="images", like="best")
    assert (spec.networks, spec.seeds, spec.timeout, spec.like) == (("net.py:Net",), (0, 1), 300, "best")
    assert spec.data_folder == str(tmp_path / "images")
    with pytest.raises(ConfigError, match="timeout must be above 0 seconds"):
        call(timeout="0s")
    with pytest.raises(TypeError, match="tracker"):
        call(tracker="wandb")


def test_paths_are_paths_and_one_may_stand_for_several() -> None:
    images = options_of(PredictSpec)["images"]
    assert images.read("a.png") == (Path("a.png"),)
    assert images.read(["a.png", Path("b.png")]) == (Path("a.png"), Path("b.png"))
    assert options_of(SearchSpec)["space"].read(Path("mine.yaml")) == "mine.yaml"


def test_an_ablation_is_of_a_retraining(tmp_path: Path) -> None:
    spec = AblateSpec(StudyPaths(tmp_path), "7", epochs=3, hold_out=0.2, recipe="fast", device="cpu", labels="t.csv")
    base = spec.base
    assert (base.which, base.epochs, base.hold_out, base.recipe, base.labels) == ("7", 3, 0.2, "fast", "t.csv")
    assert (base.compiled, base.seed, base.selection.hold_out) == (False, 0, 0.2)
