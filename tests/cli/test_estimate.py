"""`nas search --estimate`: a table and a range on standard output, and nothing begun."""

from dataclasses import replace
from pathlib import Path

import pytest

from nas.cli.search import estimate_lines
from nas.paths import studies_folder
from nas.study import estimate as library
from nas.study.estimate import Estimate, Span, TimedNetwork
from tests.conftest import TINY_SPACE, Nas

ESTIMATE = Estimate(
    study="mine",
    trials=12,
    train_images=45_000,
    validation_images=5_000,
    devices=["cpu"],
    threads=2,
    precision="bf16",
    networks=[TimedNetwork(50, 174_634, 14_700_000, 128, "basic 2-1-1 × 32-64-64 k3-3-3 silu", 1.0, 18.25, 1.825)],
    epochs=18,
    expected_epochs=5.61,
    pruning="asha prunes somehow",
    whole=Span(600.0, 1200.0, 7200.0),
)


def test_estimate_is_said_in_lines() -> None:
    assert estimate_lines(ESTIMATE) == [
        "study     mine, 12 networks to train; it is not created",
        "data      45,000 training images, 5,000 validation images",
        "workers   1 on cpu, 2 threads each, in bf16",
        "",
        "Time of an epoch and its share of validation, for networks that fit (by percentiles of their MACs):",
        "        parameters   MACs  batch     epoch validation  network",
        " 50 %      174,634  14.7M    128    18.2 s        10%  basic 2-1-1 × 32-64-64 k3-3-3 silu",
        "",
        "pruning   5.6 of 18 epochs per network on average; asha prunes somehow",
        "search    about 20 min: from 10 min, up to 2 h 00 min if the sampler prefers slow networks",
    ]


def test_a_long_epoch_is_said_in_minutes_and_one_that_was_not_timed_is_marked() -> None:
    (line,) = (
        line
        for line in estimate_lines(replace(ESTIMATE, networks=[replace(ESTIMATE.networks[0], epoch=1620.0, timed=False)]))
        if "%" in line[:6]
    )
    assert "   27 min         0%  basic" in line
    assert line.endswith("silu  (estimated from its MACs)")


def test_of_several_workers_it_is_said_that_each_was_timed_alone() -> None:
    lines = estimate_lines(Estimate(**{**vars(ESTIMATE), "devices": ["cuda:0", "cuda:1"]}))
    assert "workers   2 on cuda:0, cuda:1, 2 threads each, in bf16" in lines
    assert "note      each network was timed alone on cuda:0; parallel workers are each slower" in lines


def test_estimate_creates_no_study(nas: Nas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "TIMED_SECONDS", 0.01)
    Path("tiny.yaml").write_text(TINY_SPACE)
    done = nas("search", "--space", "tiny.yaml", "--dataset", "digits", "--device", "cpu", "--trials", "4", "--estimate")
    assert done.code == 0
    assert done.out.startswith("study     tiny-digits, 4 networks to train; it is not created\n")
    assert [line.split()[0] for line in done.out.splitlines() if " % " in line] == ["10", "30", "50", "70", "90"]
    assert done.out.splitlines()[-1].startswith("search    about ")
    assert done.err.startswith("timing ")
    assert not studies_folder().exists()


def test_mistake_is_a_sentence(nas: Nas) -> None:
    done = nas("search", "--space", "digits", "--dataset", "digits", "--ray", "auto", "--estimate")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "Error: --estimate works for this machine, not for the nodes of a Ray cluster\n"
        "Next:  leave out --ray, and estimate on a machine like its nodes\n"
    )
