"""What `nas show` says of a network (layers, cost, recipe) or a space (ranges, how much of it fits)."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from nas.budget import Budget
from nas.config import ImageShape, LatencyConfig, MetricName
from nas.errors import NasError
from nas.foreign.measure import ForeignFacts
from nas.paths import PRESET, existing_study
from nas.report.check import latency_of
from nas.report.network import measured
from nas.runs.select import Subject, find_subject, preset_subject
from nas.space.feasibility import Fill, Fit, check_blocks, check_feasible, measure_cost, measure_fill, measure_fit, time_draws
from nas.space.space import Space
from nas.space.space_file import CIFAR10, load_space
from nas.study.settings import read_settings

TIMED_DRAWS = 12


@dataclass(frozen=True)
class ShownNetwork:
    study: str | None  # None of a preset that is shown for no study's images
    subject: Subject
    metric: MetricName  # what its accuracy in the search is measured by
    images: ImageShape
    facts: ForeignFacts
    latency: LatencyConfig | None = None  # the study's limit, on its own images; …
    milliseconds: float | None = None
    """… and what the network takes: as the search measured it, or else now. None where this machine cannot time it."""


def show_network(which: str, study: str | None, images: dict[str, int], note: Callable[[str], None]) -> ShownNetwork:
    """`best`, a trial's number, or a preset; on the study's images, for presets without a study on CIFAR-10's, with the fields of
    `images` in place of theirs. Raises NasError; `note` hears what could not be timed."""
    if which.startswith(PRESET) and study is None:
        subject, shape = preset_subject(which), CIFAR10.model_copy(update=images)
        return ShownNetwork(None, subject, "accuracy", shape, measured(subject.candidate.arch, shape))
    paths = existing_study(study)
    settings, subject = read_settings(paths), find_subject(paths, which)
    arch, shape, latency = subject.candidate.arch, settings.shape.model_copy(update=images), settings.budget.latency
    shown = ShownNetwork(paths.name, subject, settings.study.metric, shape, measured(arch, shape))
    if images or latency is None:
        return shown
    return replace(shown, latency=latency, milliseconds=latency_of(arch, shape, settings.budget, paths.latencies, note))


@dataclass(frozen=True)
class ShownSpace:
    space: Space  # for the images that are asked for
    fit: Fit  # of uniform draws, the latency aside
    fill: Fill | None  # None of a space whose widths are drawn
    cost: dict[str, int]  # multiply-adds below which a share of the draws that keep the parameters lies; empty where none does
    milliseconds: list[float]
    """Ascending, of a few draws that keep the other limits; empty where the latency is not limited, or cannot be timed here."""

    @property
    def in_time(self) -> float | None:
        """Share of those that keep the latency."""
        limit = self.space.budget.latency
        if limit is None or not self.milliseconds:
            return None
        return sum(ms <= limit.max_ms for ms in self.milliseconds) / len(self.milliseconds)


def show_space(name: str, draws: int, images: dict[str, int], note: Callable[[str], None]) -> ShownSpace:
    """Of so many uniform draws, on the space's images, with the fields of `images` in place of theirs. Raises NasError, also
    where nothing fits on such images; `note` hears what could not be timed."""
    space = load_space(name)
    space = space.for_images(space.images.model_copy(update=images))
    check_blocks(space)
    budget = Budget(space.budget, space.images)
    if images:
        check_feasible(space, budget)
    milliseconds: list[float] = []
    if space.budget.latency is not None:
        try:
            milliseconds = time_draws(space, budget, TIMED_DRAWS, draws, seed=0)
        except NasError as error:
            note(f"Not timed: {error.message}")
    return ShownSpace(
        space=space,
        fit=measure_fit(space, budget, draws, seed=0),
        fill=measure_fill(space, draws, seed=0) if space.fills else None,
        cost=measure_cost(space, budget, draws, seed=0),
        milliseconds=milliseconds,
    )
