"""One step of the weights: its rate, the optimisers by name (Muon among them), sharpness-aware minimisation, and the average.

To add an optimiser: an entry in OPTIMISERS, its name in `nas.config.OptimiserName`. To add a schedule: a function
`(progress, config) -> factor`, an entry in SCHEDULES, its name in `nas.config.ScheduleName`.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from nas.config import MUON_STEPS, TrainConfig

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
"""Those of nas have images' alone; a block of one's own and a known network may have any."""

# ------------------------------------------------------------------------------------------------------ learning rates

# OneCycle starts at peak / 25 and ends at that / 10,000: torch's defaults, after arXiv 1708.07120.
ONECYCLE_START = 1 / 25
ONECYCLE_END = ONECYCLE_START / 1e4


def _cosine_between(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def cosine(progress: float, config: TrainConfig) -> float:
    """From 1 to 0 along half a cosine (arXiv 1608.03983, without restarts)."""
    return _cosine_between(1.0, 0.0, progress)


def linear(progress: float, config: TrainConfig) -> float:
    """From 1 to 0 along a line."""
    return 1.0 - progress


def warmup_cosine(progress: float, config: TrainConfig) -> float:
    """Linear from 0 to 1 during the warm-up, then a cosine to 0."""
    if progress < config.warmup:
        return progress / config.warmup
    return _cosine_between(1.0, 0.0, (progress - config.warmup) / (1 - config.warmup))


def onecycle(progress: float, config: TrainConfig) -> float:
    """Two half cosines: up from 1/25 during the warm-up, then down to almost 0."""
    if progress < config.warmup:
        return _cosine_between(ONECYCLE_START, 1.0, progress / config.warmup)
    return _cosine_between(1.0, ONECYCLE_END, (progress - config.warmup) / (1 - config.warmup))


def multistep(progress: float, config: TrainConfig) -> float:
    """Times gamma after each milestone."""
    # A milestone that is a whole epoch must not be missed by the rounding of its share.
    return config.gamma ** sum(progress >= milestone - 1e-9 for milestone in config.milestones)


def constant(progress: float, config: TrainConfig) -> float:
    return 1.0


SCHEDULES: dict[str, Callable[[float, TrainConfig], float]] = {
    "cosine": cosine,
    "linear": linear,
    "onecycle": onecycle,
    "warmup_cosine": warmup_cosine,
    "multistep": multistep,
    "constant": constant,
}
"""Pure functions of progress in [0, 1] to a factor of the peak rate."""


def learning_rate(step: int, steps_per_epoch: int, config: TrainConfig) -> float:
    """The rate of `step` (from 0) of the whole run.

    Progress is taken at the step's middle, so that neither the first nor the last step is wasted on a rate of 0; with
    `rate_per_epoch` it is that of the epoch's begin, as in scripts that step their scheduler after each epoch, and during a
    linear warm-up that of its end.
    """
    if config.rate_per_epoch:
        epoch = step // steps_per_epoch
        progress = epoch / config.epochs
        if config.schedule == "warmup_cosine" and progress < config.warmup:
            progress = min((epoch + 1) / config.epochs, config.warmup)  # or the first epoch would train at a rate of 0
    else:
        progress = (step + 0.5) / (steps_per_epoch * config.epochs)
    return config.peak_lr * SCHEDULES[config.schedule](progress, config)


# ---------------------------------------------------------------------------------------------- groups and optimisers

RATE_FACTOR, ORTHOGONAL = "rate_factor", "orthogonal"
"""Keys of a group: what the schedule's rate is multiplied by there, and whether Muon orthogonalises its steps."""


def parameter_groups(model: nn.Module, config: TrainConfig, steps: int = MUON_STEPS) -> list[dict[str, Any]]:
    """The weights of convolutions and linear layers decay; BatchNorm and biases only if the recipe says so (arXiv 1812.01187).
    BatchNorm's biases have a group of their own where their rate has a factor, and so have the filters that Muon turns, without
    decay. The first group follows the schedule as it is."""
    turned = [m.weight for m in model.modules() if turns(m)] if config.optimiser == "muon" else []
    faster = {id(m.bias) for m in model.modules() if shifts(m)} if config.norm_bias_lr != 1 else set()
    trained = [p for p in model.parameters() if p.requires_grad]
    apart = faster | {id(p) for p in turned}
    usual = [p for p in trained if id(p) not in apart]
    decay_of_norm = config.weight_decay if config.decay_norm_and_bias else 0.0
    if config.decay_norm_and_bias:
        groups = [{"params": usual, "weight_decay": config.weight_decay}]
    else:
        groups = [
            {"params": [p for p in usual if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in usual if p.ndim <= 1], "weight_decay": 0.0},
        ]
    if faster:
        biases = [p for p in trained if id(p) in faster]
        groups.append({"params": biases, "weight_decay": decay_of_norm / config.norm_bias_lr, RATE_FACTOR: config.norm_bias_lr})
    if turned:
        own = {"momentum": config.muon_momentum, "weight_decay": 0.0, RATE_FACTOR: config.peak_muon_lr(steps) / config.lr}
        groups.append({"params": turned, ORTHOGONAL: True, **own})
    return groups


def shifts(module: nn.Module) -> bool:
    """Whether its bias is one of those that `norm_bias_lr` is for: BatchNorm's, and that of frozen filters."""
    return isinstance(module, BATCH_NORMS) or (isinstance(module, nn.Conv2d) and not module.weight.requires_grad)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get(RATE_FACTOR, 1.0)


def _sgd(groups: list[dict[str, Any]], config: TrainConfig, fused: bool, dtype: torch.dtype) -> torch.optim.Optimizer:
    nesterov = config.nesterov and config.momentum > 0
    optimiser = torch.optim.SGD(groups, lr=config.peak_lr, momentum=config.momentum, nesterov=nesterov, fused=fused)
    if config.momentum:
        # Zeros make the first step what torch's is. Left to itself it allocates these in the first step without writing them
        # where a gradient scaler skips that one, and would read them in the second.
        for parameter in (p for group in groups for p in group["params"]):
            optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimiser


OPTIMISERS: dict[str, Callable[[list[dict[str, Any]], TrainConfig, bool, torch.dtype], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": lambda groups, config, fused, dtype: torch.optim.Adam(groups, lr=config.peak_lr, fused=fused),
    "adamw": lambda groups, config, fused, dtype: torch.optim.AdamW(groups, lr=config.peak_lr, fused=fused),
    "muon": lambda groups, config, fused, dtype: Muon(groups, config.peak_lr, config.momentum, config.nesterov, fused, dtype),
}


def make_optimiser(
    model: nn.Module, config: TrainConfig, device: torch.device, dtype: torch.dtype | None = None, steps: int = MUON_STEPS
) -> torch.optim.Optimizer:
    """Fused where torch has such kernels: on CUDA and the CPU. `dtype`, by default float32, is that of products which the
    gradients' precision does not hang on; `steps`: those of the whole run."""
    fused = device.type in ("cuda", "cpu")
    return OPTIMISERS[config.optimiser](parameter_groups(model, config, steps), config, fused, dtype or torch.float32)


# ---------------------------------------------------------------------------------------------------------------- Muon

# Momentum whose steps are orthogonalised, for the filters of convolutions; Nesterov's gradient descent for all else.
# Sources: Jordan et al. 2024 (kellerjordan.github.io/posts/muon) for the optimiser; the same author's CIFAR-10 speed runs (the
# code beside arXiv 2404.00498, `airbench94_muon`) for its use on filters: three iterations, and a fixed norm in place of weight
# decay. torch's own, from 2.9 on, takes matrices alone.
ITERATIONS = 3
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic that is applied to the singular values: chosen by its author to raise small ones fast, not to end at 1."""


def turns(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether its filters are what Muon is for: trained ones of a convolution over all channels without a bias, such as stand
    before BatchNorm, so that their norm matters little."""
    return isinstance(module, nn.Conv2d) and module.groups == 1 and module.bias is None and module.weight.requires_grad


def orthogonalised(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """`matrices` (N, R, C), each with its singular vectors, and singular values near 1: most within 0.5 to 1.3, the smallest
    below. float32, computed in `dtype` by Newton–Schulz iteration.

    Every iterate is the first one times a polynomial of its Gram matrix (R, R): only that is iterated, for about half the
    multiply-adds.
    """
    norms = torch.linalg.vector_norm(matrices, dim=(1, 2), keepdim=True)
    x = (matrices / (norms + 1e-7)).to(dtype)
    tall = x.shape[1] > x.shape[2]
    wide = x.mT if tall else x
    a, b, c = COEFFICIENTS
    gram, product = wide @ wide.mT, None
    for left in reversed(range(ITERATIONS)):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor if product is None else factor @ product
        if left:
            gram = factor @ gram @ factor
    wide = product @ wide
    return (wide.mT if tall else wide).float()


class Muon(torch.optim.Optimizer):
    """Groups with the key `ORTHOGONAL` hold filters (out, in, k, k). A step turns them by about its rate, in radians, and keeps
    their norm within √out. All others step as by `torch.optim.SGD`."""

    def __init__(
        self, groups: list[dict[str, Any]], lr: float, momentum: float, nesterov: bool, fused: bool, dtype: torch.dtype
    ) -> None:
        """`dtype` is that of the iteration's products."""
        super().__init__(groups, {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": 0.0, ORTHOGONAL: False})
        self._fused, self._dtype = fused, dtype
        # A gradient scaler then leaves what it found on the device, as attributes `grad_scale` and `found_inf`, in place of
        # waiting for it.
        self._step_supports_amp_scaling = fused

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """`closure` is for torch's sake and must be None."""
        assert closure is None
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if group[ORTHOGONAL]:
                alike: dict[Any, list[Tensor]] = {}
                for p in parameters:
                    alike.setdefault((p.shape, p.stride()), []).append(p)
                for filters in alike.values():
                    self._turn(filters, group)
            else:
                self._descend(parameters, parameters, group, group["lr"])

    def _descend(self, targets: list[Tensor], parameters: list[Tensor], group: dict[str, Any], rate: float) -> None:
        """Moves `targets` as SGD would move `parameters`, by (Nesterov) momentum, unless a gradient has overflowed."""
        buffers: list[Tensor | None] = [None] * len(parameters)
        if momentum := group["momentum"]:
            for p in parameters:
                if not self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            buffers = [self.state[p]["momentum_buffer"] for p in parameters]
        sgd(
            targets,
            [p.grad for p in parameters if p.grad is not None],
            buffers,
            foreach=not self._fused,
            fused=self._fused,
            grad_scale=getattr(self, "grad_scale", None),
            found_inf=getattr(self, "found_inf", None),
            weight_decay=group["weight_decay"],
            momentum=momentum,
            lr=rate,
            dampening=0.0,
            nesterov=group["nesterov"] and momentum > 0,
            maximize=False,
        )

    def _turn(self, filters: list[Tensor], group: dict[str, Any]) -> None:
        """`filters`, all of one shape (out, in, k, k), in one batch."""

        def as_filters(batch: Tensor) -> list[Tensor]:
            """Views into `batch`, each laid out in memory as the filters are."""
            return [each.as_strided(p.shape, p.stride(), each.storage_offset()) for each, p in zip(batch, filters, strict=True)]

        out = len(filters[0])
        # A row is a filter; the order of its values is free, so that it is that of the memory.
        steps = filters[0].new_zeros(len(filters), out, filters[0][0].numel())
        self._descend(as_filters(steps), filters, group, rate=-1.0)
        directions = orthogonalised(steps, self._dtype).contiguous()
        # A tall matrix has fewer singular values than rows: without the factor it would turn by less.
        rate = group["lr"] * max(1.0, out / steps.shape[2]) ** 0.5
        torch._foreach_add_(filters, as_filters(directions), alpha=-rate)
        norms = torch.stack(torch._foreach_norm(filters))
        limits = (out**0.5 / norms.clamp(min=1e-7)).clamp(max=1.0)
        if (overflow := getattr(self, "found_inf", None)) is not None:  # then the step was 0
            limits = torch.where(overflow > 0, 1.0, limits)
        torch._foreach_mul_(filters, limits.unbind())


# ------------------------------------------------------------------------------------------------- around the optimiser


class SharpnessAware:
    """Sharpness-aware minimisation (Foret et al. 2021, arXiv 2010.01412): the gradient is taken at the worst point near the
    weights. Works around any optimiser: backward, `climb`, backward again, `descend`, step."""

    def __init__(self, model: nn.Module, rho: float) -> None:
        """`rho` is the Euclidean radius of the neighbourhood."""
        self._params: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        self._norms = [m for m in model.modules() if isinstance(m, BATCH_NORMS)]
        self._rho = rho
        self._home: list[Tensor] = []

    @torch.no_grad()
    def climb(self) -> None:
        """Moves the weights by `rho` along their gradient and clears it. A loss scale cancels out of the direction."""
        params = [p for p in self._params if p.grad is not None]
        gradients = [p.grad for p in params if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        self._home = [p.clone() for p in self._params]
        torch._foreach_add_(params, list(torch._foreach_mul(gradients, self._rho / (norm + 1e-12))))
        for p in self._params:
            p.grad = None

    @torch.no_grad()
    def descend(self) -> None:
        """Back to the weights from before the climb, exactly; the second gradient stays."""
        torch._foreach_copy_(self._params, self._home)
        self._home = []

    @contextmanager
    def second_pass(self) -> Iterator[None]:
        """BatchNorm's running statistics are those of the weights that are kept, not of the point above them."""
        # A momentum of 0 would not do: 0 times the NaN of an overflowed climb is NaN.
        for norm in self._norms:
            norm.track_running_stats = False
        try:
            yield
        finally:
            for norm in self._norms:
                norm.track_running_stats = True


class WeightAverage:
    """An exponential moving average of a network's weights and BatchNorm statistics, with a time constant of `epochs`. Early on
    it spans the steps so far (its decay rises as (1 + n) / (10 + n)), so that the random initial weights do not linger."""

    def __init__(self, model: nn.Module, epochs: float, steps_per_epoch: int) -> None:
        self.updates = 0
        self._decay = math.exp(-1 / (epochs * steps_per_epoch))
        self.model = copy.deepcopy(model)
        self._floats, self._counts = _tensors(self.model)
        # Training and resuming change these in place, so that one look serves for every step.
        self._sources = _tensors(model)

    @torch.no_grad()
    def update(self) -> None:
        """Takes in what the model has become."""
        # The count is kept in Python: one in a tensor, as torch's AveragedModel has it, makes the host wait for the device.
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates)) if self.updates else 0.0
        floats, counts = self._sources
        torch._foreach_lerp_(self._floats, floats, 1 - decay)
        if counts:
            torch._foreach_copy_(self._counts, counts)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "averaged": self.model.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        self.model.load_state_dict(state["averaged"])


def _tensors(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and statistics that can be averaged, and BatchNorm's counts of batches, which cannot."""
    every = [*model.parameters(), *model.buffers()]
    return [t for t in every if t.is_floating_point()], [t for t in every if not t.is_floating_point()]
