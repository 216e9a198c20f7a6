"""Starts the processes that train one network together, by torch's elastic launcher, which torchrun is the command of; hears what
they say, and ends with them.

Ctrl-C and SIGTERM are heard by this process alone, which tells the others to suspend: they agree on the step. One that fails or
dies ends the training, of which the last checkpoint stays. Should this process die, each finds its line cut, and dies, too.
"""

import logging
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from inspect import signature
from multiprocessing import Pipe, active_children, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from nas.errors import StudyError
from nas.jobs.local import describe_exit, out_of_memory_kills
from nas.jobs.placement import DeviceGroup
from nas.train.checkpoint import EpochMetrics, read_curve
from nas.train.loop import Status
from nas.train.rank import SUSPEND, Ended, Epoch, Failed, FromRank, Here, Training, run_rank

LOOK_SECONDS = 0.1
GRACE_SECONDS = 0.5
"""In which whatever else is wrong is heard, after the first sign of it: the death of one process is an error to all others."""


class RankError(Exception):
    """What one of the processes wrote where it failed: the cause of what is raised here."""


def train_together(
    training: Training, devices: DeviceGroup, on_epoch: Callable[[EpochMetrics], None], should_suspend: Callable[[], bool]
) -> Status:
    """The network is in the training's checkpoint. Raises what a process raised, or StudyError where one has died."""
    return _Crew(training, devices).run(on_epoch, should_suspend)


@dataclass
class _Rank:
    line: Connection
    theirs: Connection
    """Its own end, until it has taken it over."""
    here: bool = False
    process: BaseProcess | None = None
    """Since it has said that it is here; None, too, where it has died at once."""
    ended: Ended | None = None
    failed: Failed | None = None
    gone: bool = False
    """Its line is cut."""

    @property
    def died(self) -> bool:
        return self.gone and self.ended is None and self.failed is None


class _Crew:
    def __init__(self, training: Training, devices: DeviceGroup) -> None:
        self._training = training
        self._places = devices
        self._ranks = [_Rank(*Pipe()) for _ in range(devices.processes)]
        self._error: BaseException | None = None
        """That the launcher ended with."""
        self._kills_before = out_of_memory_kills()

    def run(self, on_epoch: Callable[[EpochMetrics], None], should_suspend: Callable[[], bool]) -> Status:
        resource_tracker.ensure_running()  # which else the thread would start, and be unblocked by
        launcher = threading.Thread(target=self._start_and_watch, name="nas-launcher", daemon=True)
        launcher.start()
        told, until = False, None
        try:
            while launcher.is_alive() and (until is None or time.monotonic() < until):
                if not told and should_suspend():
                    told = True
                    self._tell_all(SUSPEND)
                self._listen(LOOK_SECONDS, on_epoch)
                if until is None and any(rank.failed or rank.died for rank in self._ranks):
                    until = time.monotonic() + GRACE_SECONDS
            self._listen(0.0, on_epoch)
        finally:
            for rank in self._ranks:
                rank.line.close()
                rank.theirs.close()
            launcher.join()
        self._require_success()
        leader = self._ranks[0].ended
        assert leader is not None, "a launcher that ends well has heard every process end"
        return leader.status

    def _listen(self, seconds: float, on_epoch: Callable[[EpochMetrics], None]) -> None:
        """To all that is said within so many seconds, but at once to the first."""
        by_line = {rank.line: rank for rank in self._ranks if not rank.gone}
        if not by_line:
            time.sleep(seconds)
        while ready := wait(list(by_line), seconds):
            seconds = 0.0
            for line in ready:
                rank = by_line[line]  # type: ignore[index]
                try:
                    self._hear(rank, rank.line.recv(), on_epoch)
                except (EOFError, OSError):
                    rank.gone = True
                    del by_line[rank.line]

    def _hear(self, rank: _Rank, message: FromRank, on_epoch: Callable[[EpochMetrics], None]) -> None:
        match message:
            case Here(pid=pid):
                rank.here = True
                rank.process = next((process for process in active_children() if process.pid == pid), None)
                if all(each.here for each in self._ranks):
                    for each in self._ranks:
                        each.theirs.close()  # each has its own now, and would not be heard to die while it is open here
            case Epoch(metrics=metrics):
                on_epoch(metrics)
            case Ended():
                rank.ended = message
            case Failed():
                rank.failed = message

    def _tell_all(self, what: str) -> None:
        for rank in self._ranks:
            with suppress(OSError):  # it is gone, and is heard to be
                rank.line.send(what)

    # ----------------------------------------------------------------------------------------------------- the launcher

    def _start_and_watch(self) -> None:
        """In a thread, for torch would take over the signals of the main one; what it starts inherits which ones it does not
        hear."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            self._launch_all()
        except BaseException as error:
            self._error = error

    def _launch_all(self) -> None:
        # Not among the imports: they take a second, which only those wait for who train in several processes.
        from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

        _silence()
        # They end by themselves, or by their line.
        quick: dict[str, Any] = {"shutdown_timeout": 1} if "shutdown_timeout" in signature(LaunchConfig).parameters else {}
        with tempfile.TemporaryDirectory(prefix="nas-launch-") as folder:
            # As `torchrun --standalone` has it: on this machine alone, by a port that is free.
            config = LaunchConfig(
                min_nodes=1,
                max_nodes=1,
                nproc_per_node=self._places.processes,
                run_id=uuid.uuid4().hex,
                rdzv_backend="c10d",
                rdzv_endpoint="localhost:0",
                local_addr="localhost",
                max_restarts=0,
                start_method="spawn",
                logs_specs=DefaultLogsSpecs(log_dir=folder),
                **quick,
            )
            theirs = [rank.theirs for rank in self._ranks]
            elastic_launch(config, run_rank)(self._training, self._places.device.type, self._places.threads, theirs)

    def _require_success(self) -> None:
        """Raises what is wrong: a death before an error, for the one causes the other."""
        dead = [number for number, rank in enumerate(self._ranks) if rank.died]
        failed = [rank.failed for rank in self._ranks if rank.failed]
        if dead:
            process = self._ranks[dead[0]].process
            raise self._death_of(dead[0], None if process is None else process.exitcode)
        if failed:
            raise failed[0].error from RankError(f"\n{failed[0].trace}")
        for number, failure in getattr(self._error, "failures", {}).items():  # before it could say a word
            raise self._death_of(number, failure.exitcode)
        if self._error is not None:
            raise self._error

    def _death_of(self, number: int, code: int | None) -> StudyError:
        by = "" if code is None else f" by {describe_exit(code)}"
        if code == -signal.SIGKILL and out_of_memory_kills() > self._kills_before:
            by += ", for the machine had no memory left"
        epoch = len(read_curve(self._training.run.metrics)) + 1
        written = self._training.run.checkpoint.is_file()
        return StudyError(
            f"process {number + 1} of {len(self._ranks)} ended{by} in epoch {epoch}, and with it the training",
            hint="the same command goes on from the last checkpoint" if written else "the same command begins again",
        )


def _silence() -> None:
    """What torch's launcher logs of a death is said here in one sentence. Each of its loggers has a level of its own."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(("torch.distributed.elastic", "torch.distributed.launcher", "torch.multiprocessing")):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
