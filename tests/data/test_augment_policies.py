"""The policies against torchvision's: operations, strengths, sub-policies, and how often each is drawn."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, autoaugment

from nas.config import AugmentConfig
from nas.data.augment import augment, policies
from nas.data.augment.draw import Draw
from nas.data.augment.policies import (
    AUTOAUGMENT_STRENGTHS,
    DRAWN,
    OPERATIONS,
    RANDAUGMENT_STRENGTHS,
    TRIVIALAUGMENT_STRENGTHS,
    Strengths,
    Tasks,
    cifar10_policy,
)
from tests.data.pictures import a_draw, apart, pictures, share_apart

# torchvision tells its tables and applies one operation only by functions that it does not export.
SPACES: dict[str, tuple[Strengths, Callable[[int], dict[str, tuple[Tensor, bool]]]]] = {
    "randaugment": (RANDAUGMENT_STRENGTHS, lambda size: autoaugment.RandAugment()._augmentation_space(31, (size, size))),
    "autoaugment": (AUTOAUGMENT_STRENGTHS, lambda size: autoaugment.AutoAugment()._augmentation_space(10, (size, size))),
    "trivialaugment": (TRIVIALAUGMENT_STRENGTHS, lambda _: autoaugment.TrivialAugmentWide()._augmentation_space(31)),
}


class _Signed(Draw):
    """Every sign the same."""

    sign = 1

    def signs(self, n: int) -> Tensor:
        return torch.full((n,), self.sign)


def _apply(images: Tensor, operation: str, strengths: Strengths, sign: int) -> Tensor:
    """Image i at the strength of bin i."""
    draw = _Signed.seeded(0, torch.arange(len(images)))
    object.__setattr__(draw, "sign", sign)
    bins = torch.arange(len(images))
    return policies.apply(images, {operation: (torch.arange(len(images)), bins)}, strengths, draw)


def _theirs(images: Tensor, operation: str, table: Tensor, sign: int) -> Tensor:
    magnitudes = [sign * float(x) for x in table] if table.ndim else [0.0] * len(images)
    nearest = InterpolationMode.NEAREST
    return torch.stack([autoaugment._apply_op(x, operation, m, nearest, None) for x, m in zip(images, magnitudes, strict=True)])


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32)])
@pytest.mark.parametrize("name", SPACES)
def test_every_operation_at_every_strength(name: str, channels: int, size: int) -> None:
    strengths, space = SPACES[name]
    images = pictures(strengths.bins, channels, size)
    assert set(space(size)) <= set(OPERATIONS)
    for operation, (table, signed) in space(size).items():
        assert signed == OPERATIONS[operation].signed
        for sign in (1, -1) if signed else (1,):
            ours, theirs = _apply(images, operation, strengths, sign), _theirs(images, operation, table, sign)
            if OPERATIONS[operation].moves:
                assert share_apart(ours, theirs) < 0.01, operation  # sources midway between two pixels
            else:
                assert apart(ours, theirs) <= 1, operation
                assert share_apart(ours, theirs) < 0.15, operation  # rounding errors cut off


@pytest.mark.parametrize("size", [8, 28, 32, 96])
@pytest.mark.parametrize("name", SPACES)
def test_strengths_are_torchvisions(name: str, size: int) -> None:
    strengths, space = SPACES[name]
    for operation, (table, _) in space(size).items():
        if table.ndim:
            assert torch.equal(strengths.table(OPERATIONS[operation].strength, size, size, torch.device("cpu")), table.float()), (
                operation
            )


def test_operations_are_torchvisions() -> None:
    for name in ("randaugment", "trivialaugment"):
        assert set(SPACES[name][1](32)) == set(DRAWN)
    assert {name for pair in cifar10_policy() for name, _, _ in pair} <= set(OPERATIONS)


def test_autoaugment_has_the_sub_policies_that_were_published() -> None:
    """torchvision holds them; another release must not change what a study trains with unseen (arXiv 1805.09501)."""
    table = repr([list(map(tuple, pair)) for pair in cifar10_policy()])
    assert hashlib.sha256(table.encode()).hexdigest()[:16] == "5056aff8acd15e40"


def _recorded(monkeypatch: pytest.MonkeyPatch, config: AugmentConfig, n: int) -> list[Mapping[str, tuple[Tensor, Tensor]]]:
    """The tasks of each step for n images."""
    seen: list[Tasks] = []

    def record(images: Tensor, tasks: Tasks, *_: Any) -> Tensor:
        seen.append(tasks)
        return images

    monkeypatch.setattr(policies, "apply", record)
    policies.random_policy(pictures(2, 1, 8)[:1].expand(n, 1, 8, 8), config, a_draw(n))
    return seen


def test_randaugment_draws_each_operation_alike_in_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = _recorded(monkeypatch, AugmentConfig(policy="randaugment", policy_ops=3, policy_magnitude=11), 14_000)
    assert len(steps) == 3
    for tasks in steps:
        assert torch.cat([where for where, _ in tasks.values()]).sort().values.equal(torch.arange(14_000))
        for where, bins in tasks.values():
            assert abs(len(where) - 1000) < 130
            assert (bins == 11).all()
    both = set(steps[0]["Rotate"][0].tolist()) & set(steps[1]["Rotate"][0].tolist())
    assert 35 < len(both) < 115  # 1 of 14² each


def test_trivialaugment_draws_one_operation_and_any_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    (tasks,) = _recorded(monkeypatch, AugmentConfig(policy="trivialaugment"), 14_000)
    assert set(tasks) == set(DRAWN)
    for where, bins in tasks.values():
        assert abs(len(where) - 1000) < 130
        assert set(bins.tolist()) == set(range(31))


def test_autoaugment_draws_sub_policies_alike_and_each_operation_by_its_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    n = 50_000
    first, second = _recorded(monkeypatch, AugmentConfig(policy="autoaugment"), n)
    for step, tasks in enumerate((first, second)):
        expected: dict[tuple[str, int], float] = {}
        for sub_policy in cifar10_policy():
            name, probability, strength = sub_policy[step]
            expected[name, strength] = expected.get((name, strength), 0) + probability / 25 * n
        found = {name: bins.bincount(minlength=10) for name, (_, bins) in tasks.items()}
        for (name, strength), count in expected.items():
            times = int(found[name][strength]) if count else 0
            assert abs(times - count) < 5 * max(count, 1) ** 0.5, (step, name)
        assert sum(int(bins.sum()) for bins in found.values()) == sum(len(where) for where, _ in tasks.values())
    # Both operations come from one sub-policy: whoever shears in the first step shifts or posterises in the second, or nothing.
    sheared = set(first["ShearY"][0].tolist())
    others = set().union(*(set(where.tolist()) for name, (where, _) in second.items() if name not in ("TranslateY", "Posterize")))
    assert sheared
    assert not sheared & others
    # Whether the second is applied does not depend on the first: 0.7 of sub-policy 3, 0.3 of 5.
    strongly = set(first["ShearY"][0][first["ShearY"][1] == 8].tolist())
    shifted = strongly & set(second["TranslateY"][0].tolist())
    assert abs(len(shifted) / len(strongly) - 0.7) < 0.06


def test_in_a_batch_each_image_gets_its_own_operation() -> None:
    images = pictures(70)
    bins = torch.arange(70) % 31
    tasks = {name: (torch.arange(i, 70, 14), bins[i::14]) for i, name in enumerate(DRAWN)}
    together = policies.apply(images, tasks, TRIVIALAUGMENT_STRENGTHS, _Signed.seeded(0, torch.arange(70)))
    for i, image in enumerate(images):
        alone = {DRAWN[i % 14]: (torch.zeros(1, dtype=torch.int64), bins[i : i + 1])}
        draw = _Signed.seeded(0, torch.arange(1))
        assert torch.equal(together[i : i + 1], policies.apply(image[None], alone, TRIVIALAUGMENT_STRENGTHS, draw))


def test_a_policy_is_given_as_many_images_as_its_probability_says() -> None:
    images = torch.full((600, 3, 8, 8), 120, dtype=torch.uint8)
    images[:, :, ::2] = 40  # nearly every operation changes a pattern
    always = AugmentConfig(crop_padding=0, flip="none", policy="autoaugment")
    changed = {}
    for share in (0.0, 0.25, 1.0):
        config = always.model_copy(update={"policy_p": share})
        result = augment(images, config, Draw.seeded(3, torch.arange(600), 0, 0))
        changed[share] = (result != images).flatten(1).any(dim=1).float().mean().item()
    assert changed[0.0] == 0
    assert changed[0.25] == pytest.approx(0.25 * changed[1.0], abs=0.06)
