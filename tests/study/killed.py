"""`nas`, in which the processes that a file lists are killed at the transitions that it lists, one after another.

NAS_TEST_PENDING=FILE python -c "from tests.study.killed import main; main()" search …

Workers import this module, too, since it holds what they are told to run.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nas.budget import Budget
from nas.cli.main import main as main
from nas.jobs import local
from nas.study import drawing, outcomes
from nas.study.owned import OwnedStorage
from nas.study.pruners import Asha
from nas.train import loop

PENDING = Path(os.environ["NAS_TEST_PENDING"])


def reached(transition: str) -> None:
    """Kills this process, or the one that it works for, if that is what comes next."""
    pending = PENDING.read_text().splitlines()
    if not pending or pending[0].partition(": ")[2] != transition:
        return
    PENDING.write_text("\n".join(pending[1:]))
    in_worker = transition.endswith("a checkpoint")
    os.kill(os.getppid() if in_worker and pending[0].startswith("coordinator") else os.getpid(), signal.SIGKILL)
    signal.pause()  # the coordinator's death is ours too


def around(
    owner: Any, name: str, before: str | None, after: str | None, when: Callable[[Any], bool] = lambda result: True
) -> None:
    real = getattr(owner, name)

    def call(*arguments: Any, **named: Any) -> Any:
        if before is not None:
            reached(before)
        result = real(*arguments, **named)
        if after is not None and when(result):
            reached(after)
        return result

    setattr(owner, name, call)


around(drawing, "ask", None, "after the ask")
around(Budget, "check", None, "after the budget's verdict")
around(loop, "save_checkpoint", "before a checkpoint", "after a checkpoint")
around(
    Asha,
    "prune",
    "between the report and the pruner's answer",
    "between the pruner's answer and its record",
    when=bool,
)
around(outcomes, "decide", None, "between the record and the tell")
around(OwnedStorage, "set_trial_state_values", "in the middle of the tell", None)
around(outcomes, "finish", None, "after the tell")
around(local.LocalExecutor, "close", "while finishing", None)

_worker = local._main


def worker(*arguments: Any) -> None:
    _worker(*arguments)


local._main = worker
