"""The storage through which a study's only coordinator writes, and its base, a storage that routes every method through one."""

import copy
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas.study.optuna_private import LeanRDBStorage, as_stored, id_of, through_json
from nas.study.retry import Retry, raise_unavailable

Connect = Callable[[], Any]  # makes a connection of sqlite3 or psycopg


@contextmanager
def unsaid() -> Iterator[None]:
    """Hides Optuna's line about each new study; its other messages are the user's choice."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _routed(name: str) -> Callable[..., Any]:
    return lambda self, *arguments, **named: self.call(name, *arguments, **named)


class RoutedStorage(BaseStorage):
    """A storage whose methods all go through `call`."""

    def call(self, name: str, *arguments: Any, **named: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no {name}")

    # Of the methods that a base class would implement by another one, some are faster if forwarded.
    for _name in (
        *BaseStorage.__abstractmethods__,
        "get_trial_id_from_study_id_trial_number",
        "get_best_trial",
        "remove_session",
    ):
        vars()[_name] = _routed(_name)


class OwnedStorage(RoutedStorage):
    """Writes through one connection, and tries again while the database is unavailable. Reads trials from memory: nobody else
    changes a trial, and trials added by others are looked up whenever all trials are read.

    A failed attempt may have been committed before the connection broke. Optuna overwrites attributes and intermediate values;
    for what it would do twice, this class looks first.
    """

    def __init__(self, url: str, connect: Connect, retry: Retry) -> None:
        self._retry = retry
        self._closed = False
        self._trials: dict[int, FrozenTrial] = {}  # by ID; a changed trial is replaced, so that a returned list does not change
        self._ids: dict[int, list[int]] = {}  # by study, the IDs of its trials in the order of their numbers

        def connect_while_owned() -> Any:
            assert not self._closed, "the study is no longer owned"
            return connect()

        how = {"creator": connect_while_owned, "poolclass": sqlalchemy.QueuePool, "pool_size": 1, "max_overflow": 0}
        # Making and checking the tables takes a second connection while the first is in use.
        self._stored = LeanRDBStorage(url, how, skip_compatibility_check=True, skip_table_creation=True)
        self.engine = self._stored.engine
        sqlalchemy.event.listen(self.engine, "handle_error", raise_unavailable)

    def close(self) -> None:
        self._closed = True
        self._stored.remove_session()
        self.engine.dispose()

    def call(self, name: str, *arguments: Any, **named: Any) -> Any:
        return self._retry(lambda again: getattr(self._stored, name)(*arguments, **named))

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        def create(again: bool) -> int:
            try:
                with unsaid():
                    return self._stored.create_new_study(directions, study_name)
            except optuna.exceptions.DuplicatedStudyError:
                if again and study_name is not None:
                    return self._stored.get_study_id_from_name(study_name)
                raise

        return self._retry(create)

    def delete_study(self, study_id: int) -> None:
        def delete(again: bool) -> None:
            try:
                self._stored.delete_study(study_id)
            except KeyError:
                if not again:
                    raise

        self._retry(delete)
        for trial_id in self._ids.pop(study_id, []):
            del self._trials[trial_id]

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._trials.get(trial_id) or self.call("get_trial", trial_id)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        ids = self._ids.setdefault(study_id, [])
        for trial in self._newer_trials(study_id):
            ids.append(id_of(trial))
            self._trials[id_of(trial)] = trial
        trials = [self._trials[trial_id] for trial_id in ids]
        chosen = trials if states is None else [trial for trial in trials if trial.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen

    def _newer_trials(self, study_id: int) -> list[FrozenTrial]:
        newest = max(self._ids[study_id][-1:], default=-1)
        return self._retry(lambda again: self._stored.newer_trials(study_id, newest))

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        if study_id not in self._ids:
            self.get_all_trials(study_id, deepcopy=False)
        template = None if template_trial is None else as_stored(template_trial)

        def is_wanted(trial: FrozenTrial) -> bool:
            if template is None:
                return trial.state == TrialState.RUNNING and not trial.params
            names = ("state", "params", "user_attrs", "system_attrs", "intermediate_values")
            return all(getattr(trial, name) == getattr(template, name) for name in names)

        def create(again: bool) -> FrozenTrial:
            made = filter(is_wanted, self._newer_trials(study_id) if again else [])
            return next(made, None) or self._stored.add_trial(study_id, template)

        trial = self._retry(create)
        if trial.number == len(self._ids[study_id]):  # else others have added trials before it, which are read with it
            self._ids[study_id].append(id_of(trial))
            self._trials[id_of(trial)] = trial
        return id_of(trial)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        def write(again: bool) -> None:
            if not (again and param_name in self._stored.get_trial(trial_id).params):
                self._stored.set_trial_param(trial_id, param_name, param_value_internal, distribution)

        self._retry(write)
        value = distribution.to_external_repr(param_value_internal)
        self._change(trial_id, params={param_name: value}, distributions={param_name: distribution})

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        def write(again: bool) -> bool:
            try:
                # A trial that runs already cannot be started; the first attempt may have started it.
                return self._stored.set_trial_state_values(trial_id, state, values) or (again and state == TrialState.RUNNING)
            except optuna.exceptions.UpdateFinishedTrialError:
                trial = self._stored.get_trial(trial_id)
                if again and trial.state == state and (values is None or trial.values == list(values)):
                    return True
                raise

        done = self._retry(write)
        if done:
            moment = "datetime_start" if state == TrialState.RUNNING else "datetime_complete"
            self._change(trial_id, state=state, **{moment: datetime.now()}, **({} if values is None else {"values": values}))
        return done

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        self.call("set_trial_intermediate_value", trial_id, step, intermediate_value)
        self._change(trial_id, intermediate_values={step: intermediate_value})

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.call("set_trial_user_attr", trial_id, key, value)
        self._change(trial_id, user_attrs={key: through_json(value)})

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.call("set_trial_system_attr", trial_id, key, value)
        self._change(trial_id, system_attrs={key: through_json(value)})

    def _change(self, trial_id: int, **fields: Any) -> None:
        """Changes a trial in memory; of a field that is a dictionary, only the given entries."""
        if trial_id in self._trials:
            trial = self._trials[trial_id] = copy.copy(self._trials[trial_id])
            for name, value in fields.items():
                setattr(trial, name, getattr(trial, name) | value if isinstance(value, dict) else value)
