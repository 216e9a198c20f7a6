"""Trains one network from its first step to its last, or from wherever a checkpoint left it.

Within an epoch nothing waits for the device: losses add up there and are read once, at its end.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.config import TrainConfig
from nas.data.loader import Resident, TrainBatches, mix_seed
from nas.device import Precision, release_memory, wait_for
from nas.errors import one_line
from nas.models import ResNet
from nas.paths import TrialPaths
from nas.train.checkpoint import EpochMetrics, Found, load_checkpoint, save_checkpoint, write_curve
from nas.train.distributed import ALONE, Group
from nas.train.evaluate import EVALUATION_BATCH, Scores, Stopped, autocast, never, tally
from nas.train.optimiser import SharpnessAware, WeightAverage, learning_rate, make_optimiser, set_rate
from nas.train.threads import TIMED_IMAGES, ThreadChoice

INITIALISATION_IMAGES = 4096  # of which layers that depend on the data are initialised

Status = Literal["finished", "stopped", "suspended", "diverged"]
"""finished: every epoch; stopped: `on_epoch` said so; suspended: `should_suspend` said so, and a checkpoint is written, or
`write` gave up, and the one before stays; diverged: a loss, in training or validation, became infinite or NaN in the epoch after
the curve's last."""


@dataclass(frozen=True)
class EpochProgress:
    """How far an epoch is, counted on the host: a device may be some steps behind."""

    epoch: int  # from 1
    phase: Literal["training", "validating"]
    done: int  # steps, or batches of validation images, …
    total: int  # … of so many
    images_per_second: float | None  # of the training; None before it is known

    @property
    def share(self) -> float:
        return self.done / self.total


@dataclass(frozen=True)
class FitResult:
    status: Status
    curve: list[EpochMetrics]
    model: nn.Module  # the averaged network, or the trained one itself where averaging is off


def carry_out(action: Callable[[], None]) -> None:
    action()


def fit(
    model: nn.Module,
    train: TrainBatches,
    validation: Resident | None,
    config: TrainConfig,
    on_epoch: Callable[[EpochMetrics], bool],
    *,
    paths: TrialPaths,
    precision: Precision,
    seed: int,
    identity: str,
    micro_batches: int = 1,
    should_suspend: Callable[[], bool] = never,
    on_begin: Callable[[int, Found], None] = lambda epochs_done, found: None,
    on_progress: Callable[[EpochProgress], None] = lambda progress: None,
    write: Callable[[Callable[[], None]], None] = carry_out,
    raw_weights: bool = False,
    compiling: Callable[[str], None] | None = None,
    group: Group = ALONE,
    channels_last: bool = True,
    threads: ThreadChoice | None = None,
) -> FitResult:
    """Trains `model` on `train`, evaluating on `validation` after each epoch.

    Args:
        on_epoch: called after each epoch's checkpoint with its metrics; False ends the training. After a resume it is
            called first for each epoch that the checkpoint holds, in order, so that whoever listens misses none.
        paths: where the checkpoint and metrics.jsonl are kept.
        seed: dropout and stochastic depth follow from it; order and augmentation from the seed of `train`.
        identity: what is trained and how; a checkpoint of another identity is not continued.
        micro_batches: parts in which a batch goes through the network, for less memory; BatchNorm sees each on its own.
        should_suspend: asked before every step and every batch of an evaluation; True writes a checkpoint there and returns.
        on_begin: told how many epochs the checkpoint holds, and what was found in its place.
        on_progress: called before each question of `should_suspend`.
        write: carries out every write to `paths`. It may see first whether it still may, and do it again after an OSError;
            Stopped gives it up, and the training ends as suspended with what is written.
        raw_weights: evaluates them beside the averaged ones, which takes as long again.
        compiling: compiles the network for training by torch.compile before it begins, and is told when it does, and how long
            that took, or why it failed, upon which the network trains without. It pays in a long training alone.
        group: trains it, all of it calling this with the same arguments but for two: `train` yields this process's part of each
            batch, and `validation` has its part of those images. What one of them is told to do they all do. None of them
            compiles: BatchNorm waits for the others in the midst of what would be compiled.
        channels_last: lays the weights of convolutions out so, in memory, as the images are.
        threads: chooses the number of CPU threads between two epochs; None leaves it as it is. An epoch that is resumed goes on
            with the number that it had.
    """
    assert (compiling is None and threads is None and train.hardest is None) or group.size == 1
    torch.manual_seed(mix_seed(seed, group.rank) if group.rank else seed)
    if isinstance(model, ResNet) and model.learns_from_data:
        model.initialise_from(train.data.sample(INITIALISATION_IMAGES).cpu())
    trainer = _Trainer(model, train, config, precision, micro_batches, group, channels_last, on_progress)
    found = trainer.restore(paths.checkpoint, identity)
    on_begin(len(trainer.curve), found)
    if compiling and len(trainer.curve) < config.epochs:
        trainer.compile(compiling)
    if threads and trainer.threads:
        threads.set(trainer.threads)

    def save() -> None:
        state = {"identity": identity, **trainer.state()}
        if group.rank == 0:
            write(lambda: save_checkpoint(paths.checkpoint, state))

    def save_curve() -> None:
        if group.rank == 0:
            write(lambda: write_curve(paths.metrics, trainer.curve))

    def is_last(metrics: EpochMetrics) -> bool:
        """Whether the training is stopped after this epoch, before its end."""
        return group.any(not on_epoch(metrics)) and metrics.epoch < config.epochs

    def train_to_the_end() -> Status:
        """Raises Stopped where `write` gives up."""
        save_curve()  # the checkpoint's curve is the truth
        for metrics in list(trainer.curve):
            if is_last(metrics):
                return "stopped"
        while len(trainer.curve) < config.epochs:
            if threads and threads.is_due and not trainer.epoch_step:
                try:
                    trainer.choose_threads(threads, should_suspend)
                except Stopped:
                    save()
                    return "suspended"
            started, steps = time.perf_counter(), len(train) - trainer.epoch_step
            try:
                trainer.run_epoch(should_suspend)
                wait_for(trainer.device)  # once an epoch, so that the seconds are the training's own
                train_seconds = time.perf_counter() - started
                raw, averaged = trainer.validate(validation, raw_weights, should_suspend)
            except Stopped:
                trainer.seconds += time.perf_counter() - started
                save()
                return "suspended"
            seconds = trainer.seconds + time.perf_counter() - started
            if not steps:  # it was cut off while it evaluated
                steps, train_seconds = len(train), trainer.seconds
            finished = trainer.finish_epoch(raw, averaged, seconds, steps * train.batch_size / max(train_seconds, 1e-9))
            if finished is None:
                return "diverged"
            save()
            save_curve()
            if is_last(finished):
                return "stopped"
        return "finished"

    try:
        status = train_to_the_end()
    except Stopped:
        status = "suspended"
    return FitResult(status, trainer.curve, trainer.averaged_model)


class _Trainer:
    """A network, what trains it, and how far it is: what a checkpoint holds."""

    def __init__(
        self,
        model: nn.Module,
        train: TrainBatches,
        config: TrainConfig,
        precision: Precision,
        micro_batches: int,
        group: Group,
        channels_last: bool,
        on_progress: Callable[[EpochProgress], None],
    ) -> None:
        self.train, self.config, self.precision, self.group, self.on_progress = train, config, precision, group, on_progress
        self.device = train.data.device
        self.parts = min(-(-micro_batches // group.size), train.batch_size // group.size)
        """In which each process's share of a batch goes through the network; as many in every process."""
        self.model = model.to(self.device)
        if channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.forward: Callable[[Tensor], Tensor] = group.wrap(self.model)
        """In training. What evaluates and what is saved is the model itself."""
        self.optimiser = make_optimiser(self.model, config, self.device, precision.autocast, max(1, len(train) * config.epochs))
        self.average = WeightAverage(self.model, config.ema_epochs, len(train)) if config.ema_epochs else None
        self.sam = SharpnessAware(self.model, config.sam_rho) if config.sam_rho else None
        self.class_weights = train.class_weights() if config.class_balance == "loss" else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision.scales_gradients)
        self.totals = torch.zeros(3, dtype=torch.float64 if self.device.type != "mps" else torch.float32, device=self.device)
        """This process's sums since the epoch began: loss × images, correct predictions, images."""
        self.losses: list[Tensor] = []  # of the images of a batch, by part, where the next pass depends on them
        self.curve: list[EpochMetrics] = []
        self.epoch_step = 0
        self.seconds = 0.0  # spent on this epoch before it was cut off
        self.images_per_second: float | None = None  # since this epoch, or what is left of it, began
        self.threads: int | None = None  # of the CPU, when the checkpoint was written; None without a checkpoint

    @property
    def averaged_model(self) -> nn.Module:
        return self.average.model if self.average else self.model

    def run_epoch(self, should_suspend: Callable[[], bool]) -> None:
        """Trains to the epoch's end. Raises Stopped between two steps."""
        self.model.train()
        epoch, first, started = len(self.curve), self.epoch_step, time.perf_counter()
        for images, targets in self.train.epoch(epoch, self.epoch_step):
            if steps := self.epoch_step - first:
                self.images_per_second = steps * self.train.batch_size / (time.perf_counter() - started)
            self.tell("training", self.epoch_step, len(self.train))
            if self.group.any(should_suspend()):
                raise Stopped
            set_rate(self.optimiser, learning_rate(epoch * len(self.train) + self.epoch_step, len(self.train), self.config))
            self.step(images, targets)
            self.epoch_step += 1

    def tell(self, phase: Literal["training", "validating"], done: int, total: int) -> None:
        self.on_progress(EpochProgress(len(self.curve) + 1, phase, done, total, self.images_per_second))

    def step(self, images: Tensor, targets: Tensor) -> None:
        """`images` (B, C, H, W); `targets` class indices (B,) or, of mixed images, each class's share (B, classes)."""
        self.losses.clear()
        self.totals += self.backward(images, targets)
        if self.train.hardest:
            self.train.hardest.record(torch.cat(self.losses))
        if self.sam:
            self.sam.climb()
            with self.sam.second_pass():
                self.backward(images, targets)
            self.sam.descend()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        if self.average:
            self.average.update()

    def backward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Adds the whole batch's mean gradient up over the parts of this process's share. Returns (3,), of that share: loss ×
        images, correct predictions, images."""
        totals = torch.zeros_like(self.totals)
        parts = zip(images.tensor_split(self.parts), targets.tensor_split(self.parts), strict=True)
        for number, (part, wanted) in enumerate(parts, 1):
            # The gradient is the mean over the processes, whose shares may differ by an image.
            weight = len(part) * self.group.size / self.train.batch_size
            with self.group.backward_of(last=number == self.parts):
                with autocast(self.device, self.precision):
                    logits = self.forward(part)
                    loss = self.loss(logits, wanted)
                self.scaler.scale(loss * weight).backward()
            with torch.no_grad():
                classes = wanted if wanted.ndim == 1 else wanted.argmax(1)
                totals[0] += loss.detach() * len(part)
                totals[1] += (logits.detach().argmax(1) == classes).sum()
                totals[2] += len(part)
        return totals

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean over the batch of `logits` (B, classes). Weights of classes are not divided by their sum over the batch, as torch
        would, so that an image weighs the same in every batch and in every part of one."""
        smoothing = self.config.label_smoothing
        if self.train.hardest:
            self.losses.append(F.cross_entropy(logits.detach().float(), targets, reduction="none", label_smoothing=smoothing))
        if self.class_weights is None:
            return F.cross_entropy(logits, targets, label_smoothing=smoothing)
        each = F.cross_entropy(logits.float(), targets, self.class_weights, reduction="none", label_smoothing=smoothing)
        return each.mean()

    def validate(
        self, validation: Resident | None, raw_weights: bool, should_stop: Callable[[], bool]
    ) -> tuple[Scores | None, Scores | None]:
        """The raw weights, if they are wanted or the only ones, and the averaged, on the validation images, of which there may be
        none. Raises Stopped."""
        if validation is None:
            return None, None
        batch = max(1, EVALUATION_BATCH // self.parts)
        may_stop = should_stop if self.group.size == 1 else never  # several would not stop at the same batch
        batches, asked = math.ceil(len(validation) / batch) * (2 if raw_weights and self.average else 1), count()

        def stop() -> bool:
            self.tell("validating", min(next(asked), batches), batches)  # more where memory is short
            return may_stop()

        def score(model: nn.Module) -> Scores:
            return Scores.of(self.group.sum(tally(model, validation, self.precision, batch=batch, should_stop=stop)))

        raw = score(self.model) if raw_weights or not self.average else None
        return raw, score(self.averaged_model) if self.average else raw

    def finish_epoch(
        self, raw: Scores | None, averaged: Scores | None, seconds: float, images_per_second: float
    ) -> EpochMetrics | None:
        """Adds the epoch to the curve. None, with nothing recorded, where a loss is not finite."""
        loss, correct, images = self.group.sum(self.totals).tolist()
        if not all(math.isfinite(value) for value in (loss, *(scores.loss for scores in (raw, averaged) if scores))):
            return None
        metrics = EpochMetrics(
            epoch=len(self.curve) + 1,
            train_loss=loss / images,
            train_accuracy=correct / images,
            val_loss=raw and raw.loss,
            val_accuracy=raw and raw.accuracy,
            ema_val_loss=averaged and averaged.loss,
            ema_val_accuracy=averaged and averaged.accuracy,
            ema_val_balanced_accuracy=averaged and averaged.balanced_accuracy,
            ema_val_macro_f1=averaged and averaged.macro_f1,
            lr=self.optimiser.param_groups[0]["lr"],
            seconds=round(seconds, 3),
            images_per_second=round(images_per_second, 1),
        )
        self.curve.append(metrics)
        self.totals.zero_()
        self.epoch_step, self.seconds = 0, 0.0
        return metrics

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds; the leader's is whole."""
        own = {"totals": self.totals.cpu(), "cpu_random": torch.get_rng_state()}
        if self.device.type == "cuda":
            own["cuda_random"] = torch.cuda.get_rng_state(self.device)
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average else {},
            "epoch_step": self.epoch_step,
            "seconds": self.seconds,
            "threads": torch.get_num_threads(),
            "hardest": self.train.hardest.state() if self.train.hardest else {},
            "curve": [asdict(metrics) for metrics in self.curve],
            "processes": self.group.gather(own),
        }

    def restore(self, path: Path, identity: str) -> Found:
        """Continues where a checkpoint of this very training left off, if it is whole. It does so exactly where as many processes
        wrote it; others have the same batches, and go on with other random numbers."""
        state, found = self.group.from_leader(lambda: load_checkpoint(path, identity))
        if state is None:
            return found
        self.model.load_state_dict(state["model"])
        for saved, group in zip(state["optimiser"]["param_groups"], self.optimiser.param_groups, strict=True):
            saved |= {"fused": group["fused"]} if "fused" in group else {}  # this device's, and not the checkpoint's
        self.optimiser.load_state_dict(state["optimiser"])
        if state["scaler"]:  # empty where the checkpoint's device needed none
            self.scaler.load_state_dict(state["scaler"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.epoch_step, self.seconds = state["epoch_step"], state["seconds"]
        if self.train.hardest:
            self.train.hardest.restore(state["hardest"])
        self.threads = state.get("threads")  # checkpoints before 1.1 lack it
        self.curve = [EpochMetrics(**metrics) for metrics in state["curve"]]
        taken_over = state["processes"][self.group.rank :: self.group.size]
        for own in taken_over:
            self.totals += own["totals"].to(self.totals)
        for own in taken_over[:1]:
            torch.set_rng_state(own["cpu_random"])
            if self.device.type == "cuda" and "cuda_random" in own:
                torch.cuda.set_rng_state(own["cuda_random"], self.device)
        return found

    @contextmanager
    def rehearsal(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The next batch, for passes forward and backward of which no trace remains."""
        first = min(self.epoch_step, len(self.train) - 1)  # after the last step only the evaluation is left
        with closing(self.train.epoch(len(self.curve), first)) as batches:
            images, targets = next(batches)
        buffers = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        self.model.train()
        try:
            with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
                yield images, targets
        finally:
            self.optimiser.zero_grad(set_to_none=True)
            for buffer, before in buffers:
                buffer.copy_(before)

    def choose_threads(self, threads: ThreadChoice, should_suspend: Callable[[], bool]) -> None:
        """Raises Stopped between two steps."""
        with self.rehearsal() as (images, targets):
            few, wanted = images[:TIMED_IMAGES], targets[:TIMED_IMAGES]
            left = (self.config.epochs - len(self.curve)) * len(self.train) * len(images) / len(few)
            threads.choose(lambda: self.backward(few, wanted), left, should_suspend)

    def compile(self, note: Callable[[str], None]) -> None:
        """Compiles the network with the first batch, of which no trace remains. Where that fails, it trains as it is."""
        from torch._dynamo.utils import counters  # takes as long to import as all of torch

        note("compiling the network, which may take some minutes")
        uncompiled = self.forward
        # The networks of a process share a limit of compilations, beyond which torch compiles none and says nothing.
        torch.compiler.reset()
        compiled_before = counters["stats"]["unique_graphs"]
        started, failure = time.perf_counter(), None
        with self.rehearsal() as (images, targets):
            try:
                self.forward = torch.compile(uncompiled, dynamic=False)
                self.backward(images, targets)
                if self.sam:
                    with self.sam.second_pass():
                        self.backward(images, targets)
                wait_for(self.device)
            except Exception as error:  # compilers fail in many ways; what is not their fault fails again without them
                failure = one_line(getattr(error, "inner_exception", error))  # torch wraps that of a compiler behind its own
        if failure is None and counters["stats"]["unique_graphs"] == compiled_before:
            failure = "it found nothing to compile"
        if failure is None:
            note(f"compiled in {time.perf_counter() - started:.0f} s")
        else:
            self.forward = uncompiled
            release_memory(self.device)
            note(f"Warning: torch.compile failed, so the network trains without it: {failure}")
