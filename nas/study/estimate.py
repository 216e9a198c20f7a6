"""How long a search would take, before it begins: some networks of the space are timed for seconds, on this machine and its data,
and the rest is computed. Creates no study."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import mean

import numpy as np
import torch

from nas.budget import Budget, count_macs, count_params
from nas.config import Candidate, StudyConfig
from nas.data.datasets import load_dataset
from nas.data.images import Dataset
from nas.data.loader import TrainBatches
from nas.data.splits import Split, validation_images
from nas.data.stream import place
from nas.device import cpu_threads, out_of_memory, pick_device, pick_precision, release_memory, tune_process
from nas.errors import ConfigError, DeviceError, StudyError, one_line
from nas.jobs.messages import WorkerPlan
from nas.jobs.placement import plan_workers
from nas.jobs.worker import warm_up
from nas.models import build_model
from nas.space.feasibility import cost_warnings, fitting_draws, nothing_fits
from nas.space.space import Space
from nas.specs import SearchSpec
from nas.study.finalists import plan_round
from nas.study.outcomes import count_outcomes, count_trained
from nas.study.request import resolve
from nas.study.run import SearchDisplay
from nas.study.storage import open_study
from nas.study.strategies import make_pruner
from nas.study.workers import workers_of
from nas.train.pace import Pace, measure_pace

PERCENTILES = (10, 30, 50, 70, 90)
"""Of the MACs: the middles of five equally large parts of the draws, so that the plain mean is the mean over all draws."""
DRAWS = 40  # that fit; the percentiles are taken among them
MOST_DRAWS = 1000
TIMED_SECONDS = 2.0  # of training steps of each network
TIMED_IMAGES = 200  # at most so many are evaluated
MEASURED_SECONDS = 30.0
"""In all. Networks are timed from the smallest on while time is left; the time of the others follows from their MACs."""
START_UP_SECONDS = 6.0  # from the command to the first epoch, with 50,000 images in the cache: scripts/bench/README.md, "Scale"


@dataclass(frozen=True)
class TimedNetwork:
    percentile: int  # of the MACs of the draws that fit
    params: int
    macs: int
    batch_size: int
    architecture: str
    start: float  # seconds, once for each training
    epoch: float  # seconds of training, validation and checkpoint
    validation: float  # of these
    timed: bool = True  # False: computed from the MACs and the largest timed network


@dataclass(frozen=True)
class Span:
    """Seconds."""

    low: float
    likely: float
    high: float


@dataclass(frozen=True)
class Estimate:
    study: str
    trials: int  # that are left to train
    train_images: int
    validation_images: int
    devices: list[str]  # of each worker; the first was timed
    threads: int  # of each worker
    precision: str
    networks: list[TimedNetwork]
    epochs: int
    expected_epochs: float  # of a trial, on average
    pruning: str  # the assumption about pruning, in words
    whole: Span


# ------------------------------------------------------------------------------------------------------- the arithmetic


def search_seconds(
    networks: Sequence[TimedNetwork],
    *,
    trials: int,
    epochs: int,
    expected_epochs: float,
    workers: int = 1,
    devices: int | None = None,
    finalists: float = 0.0,
) -> Span:
    """How long so many trials take.

    likely: all timed networks are equally frequent. low: shorter by 1/√trials, about a standard deviation, because the standard
    deviation of a trial's seconds is about their mean. high: the sampler prefers the slowest network, chance adds a standard
    deviation, and workers that share a device gain nothing by that.

    Args:
        devices: number of different devices of the workers; None if each worker has its own.
        finalists: time of training them again, as a share of the search.
    """
    workers = min(workers, trials)
    chance = 1 + 1 / math.sqrt(trials)
    slowest = max(networks, key=lambda network: network.start + epochs * network.epoch)
    typical = mean(network.start + expected_epochs * network.epoch for network in networks)
    slow, whole = (slowest.start + count * slowest.epoch for count in (expected_epochs, epochs))
    idle = 1 - 1 / workers  # share of the workers that wait while the last trial ends
    seconds = (
        trials * typical / chance / workers,
        trials * typical / workers + idle * typical,
        trials * min(slow * chance, whole) / min(devices or workers, workers) + idle * whole,
    )
    return Span(*(START_UP_SECONDS + one * (1 + finalists) for one in seconds))


# ------------------------------------------------------------------------------------------------------- the measurement


def estimate_search(request: SearchSpec, display: SearchDisplay) -> Estimate:
    """Times what `run_search` would train. Raises the same NasErrors."""
    if request.ray is not None:
        raise ConfigError(
            "--estimate works for this machine, not for the nodes of a Ray cluster",
            hint="leave out --ray, and estimate on a machine like its nodes",
        )
    asked = resolve(request)
    paths = asked.paths
    plan = WorkerPlan(asked.data, "cpu", 1, paths.folder.absolute(), "")
    plans = plan_workers(request.placement, plan, workers_of(asked.stored))
    dataset = load_dataset(asked.data, display.decoding)
    space, budget, settings, parts = asked.on(dataset, write=lambda file, content: None)
    before = 0
    if asked.stored is not None:
        asked.stored.require_same(settings, paths.name)
        before = count_trained(count_outcomes(open_study(paths).get_trials(deepcopy=False)))
    trials = request.trials - before
    if trials < 1:
        raise StudyError(
            f"study {paths.name!r} already has {before} trained networks, and --trials is {request.trials}",
            hint=f"nas search --study {paths.name} --estimate --trials {2 * before}",
        )
    chosen = spread_by_macs(space, budget, settings.data.seed, asked.strategies)
    for warning in (*space.warnings(), *settings.uncounted, *cost_warnings(space, budget, asked.space.images)):
        display.note(f"Warning: {warning}")
    count = len({one.digest for _, one in chosen})
    display.note(f"timing up to {count} networks of space {space.name}, for about {MEASURED_SECONDS:.0f} s in total")
    networks = _time_networks(chosen, dataset, parts, plans[0], display)
    pruner = make_pruner(asked.strategies.pruner, space.epochs)
    known_epochs = pruner.expected_epochs(trials, before)
    expected_epochs = float(space.epochs) if known_epochs is None else known_epochs
    pruning = f"{asked.strategies.pruner.name} prunes {pruner.describe()}"
    if known_epochs is None:
        pruning += "; its saving is unknown, so all epochs are counted"
    finalists = plan_round(request.trials * expected_epochs, space.epochs, *request.final_round)
    return Estimate(
        study=paths.name,
        trials=trials,
        train_images=len(parts.train),
        validation_images=validation_images(dataset, parts),
        devices=[plan.device for plan in plans],
        threads=plans[0].threads,
        precision=pick_precision(pick_device(plans[0].device)).name,
        networks=networks,
        epochs=space.epochs,
        expected_epochs=expected_epochs,
        pruning=pruning,
        whole=search_seconds(
            networks,
            trials=trials,
            epochs=space.epochs,
            expected_epochs=expected_epochs,
            workers=len(plans),
            devices=None if plans[0].device == "cpu" else len({plan.device for plan in plans}),
            finalists=finalists.cost / (trials * expected_epochs) if finalists else 0.0,
        ),
    )


def spread_by_macs(space: Space, budget: Budget, seed: int, config: StudyConfig) -> list[tuple[int, Candidate]]:
    """Uniform draws that fit, at the percentiles of their MACs. Raises BudgetError if nothing seems to fit."""
    broken = Counter[str]()
    fitting = list(islice(fitting_draws(space, budget, MOST_DRAWS, seed, broken), DRAWS))
    if not fitting:
        why = f"none of {MOST_DRAWS} uniform draws of space {space.name} fits its budget"
        raise nothing_fits(space, budget, why, limit=broken.most_common(1)[0][0])
    found = sorted(((candidate, cost.macs or 0) for candidate, cost in fitting), key=lambda one: one[1])
    chosen = ((percentile, *found[len(found) * percentile // 100]) for percentile in PERCENTILES)
    return [(percentile, candidate.as_trial(config, macs, space.budget.macs)) for percentile, candidate, macs in chosen]


def _time_networks(
    chosen: list[tuple[int, Candidate]], dataset: Dataset, parts: Split, plan: WorkerPlan, display: SearchDisplay
) -> list[TimedNetwork]:
    """In this process, with the threads of a worker; a network that occurs twice is timed once."""
    device = pick_device(plan.device)
    tune_process(device)
    warm_up()
    try:
        with cpu_threads(plan.threads):
            return _time_each(display.decoding(chosen, "timing networks", len(chosen)), dataset, parts, device, plan.sharing)
    except Exception as error:
        where = out_of_memory(error)
        if where is None:
            raise
        raise DeviceError(
            f"a network of this space does not fit in the memory of {where}: {one_line(error)}",
            hint="a search would use micro-batches, which the estimate cannot time; lower batch_size in the space",
        ) from None


def _time_each(
    chosen: Iterable[tuple[int, Candidate]], dataset: Dataset, parts: Split, device: torch.device, sharing: int
) -> list[TimedNetwork]:
    """`chosen`: the smallest first."""
    shape, precision, images = dataset.shape, pick_precision(device), validation_images(dataset, parts)
    few = (np.arange(images) if parts.validation is None else parts.validation)[:TIMED_IMAGES]
    train = place(dataset.train, dataset.mean, dataset.std, device, parts.train, sharing=sharing)
    validation = place(dataset.validation or dataset.train, dataset.mean, dataset.std, device, few, sharing=sharing)
    begun, last, digest = time.perf_counter(), 0.0, ""
    pace: Pace | None = None
    timed: list[TimedNetwork] = []
    known_macs = known_batch = 0  # of the last timed network
    for percentile, candidate in chosen:
        arch, config = candidate.arch, candidate.train
        batches = TrainBatches(train, config, 0, shape.classes)
        macs = count_macs(arch, shape)
        more = macs / known_macs if known_macs else 0.0
        before = time.perf_counter()
        if pace is None or (candidate.digest != digest and before - begun + last * more <= MEASURED_SECONDS):
            model = build_model(arch, shape)
            pace = measure_pace(model, batches, validation, config, precision, TIMED_SECONDS)
            del model
            release_memory(device)  # as a worker does after each training
            last, digest = time.perf_counter() - before, candidate.digest
            known_macs, known_batch, more = macs, batches.batch_size, 1.0
        step = pace.step * more * batches.batch_size / known_batch
        now = Pace(pace.start * more, step, pace.image * more, pace.checkpoint)
        timed.append(
            TimedNetwork(
                percentile=percentile,
                params=count_params(arch, shape),
                macs=macs,
                batch_size=batches.batch_size,
                architecture=arch.one_line(),
                start=now.start,
                epoch=now.epoch(len(batches), images),
                validation=images * now.image,
                timed=candidate.digest == digest,
            )
        )
    return timed
