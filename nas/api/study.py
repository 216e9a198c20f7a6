"""A study: its results, and what can be done with it."""

import dataclasses
import inspect
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console

from nas.api import html
from nas.api.networks import Baseline, Run, Trial, runs_of
from nas.config import METRIC_WORDS, parse_count
from nas.data.given import file_of_given
from nas.display.terminal import TerminalDisplay
from nas.display.trainings import show_baselines, show_retraining
from nas.errors import ConfigError, NasError, StudyError
from nas.export.formats import Exported, export
from nas.paths import StudyPaths, existing_study, known_studies, remember_study
from nas.predict.submission import Guess, Submission, predict_images, submit
from nas.report.compare import BestReport, report_best
from nas.report.page import write_page
from nas.report.paper import write_paper
from nas.report.record import read_record, read_study
from nas.report.tables import trials_table
from nas.report.words import all_counts_text
from nas.runs.comparison import finished_baselines
from nas.runs.select import find_run, none_is_best
from nas.specs import BaselineSpec, ExportSpec, PredictSpec, RetrainSpec, SearchSpec, SubmitSpec
from nas.specs.options import Given, Option, options_of, spec_of, with_options
from nas.study.finalists import Finalist
from nas.study.run import run_search
from nas.study.settings import StudySettings, read_settings

if TYPE_CHECKING:
    import pandas

Result = TypeVar("Result")
PathLike = str | os.PathLike[str]
Which = Trial | int | str  # a network to retrain: a trial, its number, `best`, or `preset:NAME`


def takes_options(run: Callable[..., Result]) -> Callable[..., Result]:
    """Decorator: replaces the parameter `given` of `run` by the options of its spec, in signature and docstring."""
    call = with_options(run, _parameter)
    taken = inspect.signature(call).parameters
    lines = [f"    {known.name}: {known.help}" for known in options_of(spec_of(run)).values() if known.name in taken]
    call.__doc__ = "\n".join([inspect.cleandoc(run.__doc__ or ""), "", "Args:", *lines])
    return call


def _parameter(known: Option) -> inspect.Parameter:
    by_place = known.argument or known.positional
    kind: Any = PathLike if known.path or (known.kind is not str and issubclass(known.kind, os.PathLike)) else known.kind
    annotation = known.type
    if known.many:
        annotation = kind | Sequence[kind]
    elif kind is PathLike:
        annotation = kind | None
    elif known.parse is not None:
        annotation = int | str | Sequence[int] if known.is_tuple else known.type | str
    return inspect.Parameter(
        known.name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD if by_place else inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if known.default is dataclasses.MISSING else known.default,
        annotation=annotation,
    )


def plain_display(quiet: bool, log: str | None = None) -> TerminalDisplay:
    """Lines on standard output, as a command writes them without a terminal; none with `quiet`."""
    console = Console(file=sys.stdout, force_terminal=False, force_jupyter=False, highlight=False)
    return TerminalDisplay(console, quiet=quiet, log=log)


@dataclass(frozen=True)
class Study:
    paths: StudyPaths

    def __repr__(self) -> str:
        report = read_study(self.paths)
        best = "" if report.best is None else f"; best trial {report.best.number}, {report.best.accuracy:.2%}"
        return f"Study({self.name!r}: {all_counts_text(report.counts)}{best})"

    def _repr_html_(self) -> str:
        """For a notebook: the ten best trials."""
        report = read_study(self.paths)
        best = None if report.best is None else report.best.number
        rows = trials_table(report.trials, best, METRIC_WORDS[self.settings.study.metric]).head(10)
        return html.heading(repr(self)) + html.table(rows)

    @property
    def name(self) -> str:
        return self.paths.name

    @property
    def folder(self) -> Path:
        return self.paths.folder

    @property
    def settings(self) -> StudySettings:
        """The fixed settings: space, budget, data, seed, sampler and pruner."""
        return read_settings(self.paths)

    # -------------------------------------------------------------------------------------------------- what was found

    @property
    def trials(self) -> list[Trial]:
        """Every trial, in order."""
        return [Trial(self.paths, row) for row in read_study(self.paths).trials]

    def rows(self) -> list[dict[str, Any]]:
        """The trials as dicts of plain values."""
        return [row.row() for row in read_study(self.paths).trials]

    def dataframe(self) -> "pandas.DataFrame":
        """One row for each trial: the columns of `rows`, and `params_…` for the drawn values, as in Optuna. Raises NasError if
        pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise NasError("a data frame needs the package pandas, which is not installed", hint="pip install pandas") from None
        drawn = [{f"params_{slot}": value for slot, value in row.drawn.items()} for row in read_study(self.paths).trials]
        return pandas.DataFrame([row | values for row, values in zip(self.rows(), drawn, strict=True)])

    def trial(self, number: int) -> Trial:
        """Raises StudyError if there is no trial of this number."""
        trials = self.trials
        if not 0 <= number < len(trials):
            there = f"the trials 0 to {len(trials) - 1}" if trials else "no trial yet"
            raise StudyError(f"study {self.name!r} has {there}, not {number}")
        return trials[number]

    @property
    def best(self) -> Trial:
        """What `nas retrain best` trains: the winner of the finalists, else the most accurate. Raises StudyError if no trial has
        completed."""
        best = read_study(self.paths).best
        if best is None:
            raise none_is_best(self.paths)
        return Trial(self.paths, best)

    def best_within(self, max_params: int | str | None = None, max_macs: int | str | None = None) -> Trial:
        """The best trial within these limits, such as `max_params="1M"`. Raises BudgetError, which names the smallest network, if
        none is within them."""
        return Trial(self.paths, self._report_best(max_params, max_macs).best)

    def front(self, max_macs: int | str | None = None) -> list[Trial]:
        """The Pareto front of accuracy against parameters: networks for which no smaller one is as accurate, smallest first."""
        return [Trial(self.paths, row) for row in self._report_best(None, max_macs).front]

    def _report_best(self, max_params: int | str | None, max_macs: int | str | None) -> BestReport:
        limits = [None if limit is None else parse_count(limit) for limit in (max_params, max_macs)]
        return report_best(self.paths, *limits)

    @property
    def finalists(self) -> list[Finalist]:
        """The best networks, which were trained again, longer and with several seeds; the winner first."""
        return read_study(self.paths).finalists

    @property
    def runs(self) -> list[Run]:
        """The retrained networks, oldest first."""
        return runs_of(self.paths)

    @property
    def chosen(self) -> Run:
        """The run that is used by default: the one that `nas retrain` chose among several networks or seeds, else the latest run
        of `best`, else the latest run. Raises StudyError if nothing was retrained."""
        return Run(find_run(self.paths, None))

    @property
    def baselines(self) -> list[Baseline]:
        """Known networks that were trained for comparison, oldest first."""
        return [Baseline(run) for run in finished_baselines(self.paths)]

    def report(self, output: PathLike | None = None, paper: PathLike | None = None) -> Path:
        """`nas report`: one page about the study, by default `report.html` in its folder. `paper`: a folder for figures, tables
        and text for a paper."""
        record = read_record(self.paths)
        page = write_page(record, None if output is None else Path(output))
        if paper is not None:
            write_paper(record, Path(paper))
        return page

    # -------------------------------------------------------------------------------------------------- what can be done

    @takes_options
    def retrain(self, given: Given[RetrainSpec], which: Which = "best", *, log: str | None = None, quiet: bool = False) -> Run:
        """`nas retrain`: trains one network on all labelled training data, in a worker, and then evaluates the official test set.
        A run that already exists is returned without training.

        Raises NasError, and KeyboardInterrupt after Ctrl-C has suspended the training: the same call resumes it.
        """
        spec = given.build(paths=self.paths, which=self._name_of(which))
        spec = dataclasses.replace(spec, data_folder=spec.data_folder and str(_as_path(spec.data_folder)))
        with plain_display(quiet, log) as display:
            display.track(self.paths)
            result = show_retraining(spec, display)
        remember_study(self.paths)
        if result.best is None:
            raise KeyboardInterrupt("the training is suspended and its checkpoint is written; the same call resumes it")
        return Run(result.best[0])

    @takes_options
    def baseline(self, given: Given[BaselineSpec], *, like: Which = "best", quiet: bool = False) -> list[Baseline]:
        """`nas baseline`: trains known networks, `torchvision:NAME`, `timm:NAME` or `FILE.py:CLASS`, one after the other in a
        worker, with the recipe and the images of the study's network `like`, and then evaluates the official test set. Baselines
        that already exist are returned without training; diverged ones are left out.

        Raises NasError, and KeyboardInterrupt after Ctrl-C has suspended a training: the same call resumes it.
        """
        spec = given.build(paths=self.paths, like=self._name_of(like))
        with plain_display(quiet) as display:
            done = show_baselines(spec, display)
        remember_study(self.paths)
        if done.failures:
            raise NasError("; ".join(f"{name} failed: {reason}" for name, reason in done.failures.items()))
        if done.suspended:
            raise KeyboardInterrupt("the training is suspended and its checkpoint is written; the same call resumes it")
        there = {run.folder for run in finished_baselines(self.paths)}
        return [Baseline(run) for run in done.runs if run.folder in there]

    def _name_of(self, which: Which) -> str:
        if isinstance(which, Trial):
            if which.paths != self.paths:
                raise ConfigError(f"trial {which.number} belongs to study {which.paths.name!r}, not to {self.name!r}")
            return str(which.number)
        return str(which)

    def _run_name(self, run: Run | str | None) -> str | None:
        if isinstance(run, Run):
            if run.folder.parent.resolve() != self.paths.retrained.resolve():
                raise ConfigError(f"{run.folder} is not a run of study {self.name!r}")
            return run.name
        return run

    @takes_options
    def submit(self, given: Given[SubmitSpec], *, run: Run | str | None = None, quiet: bool = False) -> Submission:
        """`nas submit`: predicts an unlabelled test set with the run `run` (default: `chosen`), and writes the CSV file to hand
        in. `test` may also be images in memory, as for `nas.search`; their IDs count from 0."""
        with plain_display(quiet) as display:
            spec = given.build(paths=self.paths, run=self._run_name(run), test=_as_path(given.test, "test"))
            return submit(spec, display.decoding, display.note)

    @takes_options
    def predict(self, given: Given[PredictSpec], images: Any, *, run: Run | str | None = None) -> list[Guess]:
        """`nas predict`: the most probable classes of image files, or of images in memory, as for `nas.search`.

        `images`: one or several paths of images or folders; or an array of uint8 (N, H, W) or (N, H, W, C), whose images are
        named by their positions.
        """
        several = isinstance(images, list | tuple) and all(isinstance(one, str | os.PathLike) for one in images)
        paths = [Path(one) for one in (images if several else [_as_path(images, "test")])]
        with plain_display(quiet=True) as display:
            spec = given.build(paths=self.paths, run=self._run_name(run), images=tuple(paths))
            return predict_images(spec, display.decoding, display.note)

    @takes_options
    def export(self, given: Given[ExportSpec], run: Run | str | None = None, *, quiet: bool = False) -> Exported:
        """`nas export`: weights, onnx, onnx-int8 or torch, after a check that the exported file predicts the same."""
        with plain_display(quiet) as display:
            return export(given.build(paths=self.paths, run=self._run_name(run)), display.decoding, display.note)


def _as_path(given: Any, part: str = "train") -> Any:
    """A path or None is returned unchanged; images in memory are written to a file, whose path is returned."""
    return given if given is None or isinstance(given, str | Path) else file_of_given(given, part)


@takes_options
def search(given: Given[SearchSpec], *, log: str | None = None, quiet: bool = False) -> Study:
    """`nas search`: draws networks, skips those over budget, and trains the rest with pruning.

    The same call resumes a search; for a finished study it returns at once, because `trials` counts the trained networks over all
    runs of the study. Workers are separate processes; a script needs no `if __name__ == "__main__"` for them.

    `dataset` may also be images in memory: `(images, labels)` or `(images, labels, classes)`, arrays or tensors of uint8 (N, H,
    W) or (N, H, W, C); a `torch.utils.data.Dataset` of (image, label) without random transforms; or a dict of these for `train`,
    `val` and `test`. They are written into the cache, where later calls and commands find them.

    `log` names a tracker; `quiet` prints only warnings and errors. Raises NasError, and KeyboardInterrupt after Ctrl-C has
    suspended the search: the same call resumes it.
    """
    if given.dataset is not None and not isinstance(given.dataset, str):
        given.values.update(dataset="folder", data_folder=str(file_of_given(given.dataset)))
    spec, begun = given.build(), time.monotonic()
    with plain_display(quiet, log) as display:
        result = run_search(spec, display)
        in_time = spec.timeout is None or time.monotonic() - begun < spec.timeout
        if result.interrupted and in_time:
            raise KeyboardInterrupt(f"study {result.plan.paths.name!r} is suspended; the same call resumes it")
        if result.exhausted:
            name = result.plan.paths.name
            display.note(f"the space has no new candidates; search a wider one as a new study, with warm_start='study:{name}'")
    return Study(result.plan.paths)


def open_study(name: str | None = None) -> Study:
    """A study in `studies/`, or the one used last. Raises StudyError with the existing studies."""
    return Study(existing_study(name))


def studies() -> list[str]:
    """Names of the existing studies."""
    return known_studies()
