"""The workers of `nas retrain`, `ablate` and `baseline`."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nas.config import DataConfig
from nas.jobs.placement import DeviceGroup, Placement
from nas.paths import StudyPaths
from nas.runs import train


@pytest.mark.parametrize(
    ("where", "times"),
    [
        (DeviceGroup(torch.device("cpu")), True),
        (DeviceGroup(torch.device("cpu"), wanted_threads=1), False),
        (DeviceGroup(torch.device("cpu"), processes=2), False),  # all of them would have to choose the same
        (DeviceGroup(torch.device("cuda:0")), False),
        (Placement("cpu"), True),
        (Placement("cpu", threads=1), False),
    ],
)
def test_threads_are_timed_on_the_cpu_unless_their_number_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: DeviceGroup | Placement, times: bool
) -> None:
    monkeypatch.setattr(train, "read_settings", lambda paths: SimpleNamespace(data=DataConfig(dataset="digits")))
    monkeypatch.setattr(train.LocalExecutor, "prepare", lambda executor: None)
    with train.prepared_workers(StudyPaths(tmp_path), where, 1) as executor:
        assert [plan.times_threads for plan in executor.plans] == [times]
