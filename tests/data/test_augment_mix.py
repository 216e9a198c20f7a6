"""MixUp and CutMix: what an image shows of its partner is what its target says."""

from typing import Any

import pytest
import torch
from scipy.special import betainc
from torch import Tensor

from nas.config import AugmentConfig
from nas.data.augment.mix import MIXES, beta, mix, partners
from tests.data.pictures import a_draw

N = 64


def mixed(config: AugmentConfig, seed: int = 0, size: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """Images, mixed images, and targets, where image i is the only one of class i."""
    images = torch.randn(N, 3, size, size, generator=torch.Generator().manual_seed(99))
    results, targets = mix(images, torch.arange(N), N, config, a_draw(N, seed))
    return images, results, targets


def own_and_partner(targets: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) each: an image's own share, and its partner (its own place where it has none of another)."""
    own = targets.diagonal()
    others = targets - torch.diag(own)
    return own, torch.where(others.sum(dim=1) > 0, others.argmax(dim=1), torch.arange(N))


@pytest.mark.parametrize("name", MIXES)
def test_it_follows_the_seed_and_keeps_its_input_and_the_layout(name: Any) -> None:
    images = torch.randn(N, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    before = images.clone()
    (first, targets), (again, _), (other, other_targets) = (
        mix(images, torch.arange(N) % 10, 10, AugmentConfig(mix=name), a_draw(N, seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(images, before)
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(targets, other_targets)
    assert (targets.shape, targets.dtype) == ((N, 10), torch.float32)
    assert torch.allclose(targets.sum(dim=1), torch.ones(N), atol=1e-6)
    assert float(targets.min()) >= 0


def test_mixup_is_the_weighted_mean_that_the_target_says() -> None:
    images, results, targets = mixed(AugmentConfig(mix="mixup", mixup_alpha=1.0))
    own, partner = own_and_partner(targets)
    weights = own.view(-1, 1, 1, 1)
    assert torch.allclose(results, weights * images + (1 - weights) * images[partner], atol=1e-5)
    assert len(own.unique()) > N - 3


def test_cutmix_shows_a_rectangle_of_the_partner_as_large_as_the_target_says() -> None:
    images, results, targets = mixed(AugmentConfig(mix="cutmix"))
    own, partner = own_and_partner(targets)
    is_own = (results == images).all(dim=1)
    is_partners = (results == images[partner]).all(dim=1)
    assert (is_own | is_partners).all()
    assert torch.allclose(is_own.float().mean(dim=(1, 2)), own, atol=1e-6)
    pasted = ~is_own
    assert torch.equal(pasted.sum(dim=(1, 2)), pasted.any(dim=2).sum(dim=1) * pasted.any(dim=1).sum(dim=1))  # a rectangle
    places = {tuple(row) for row in pasted.flatten(1).int().tolist()}
    assert len(places) > N * 0.8


def test_cutmix_shares_have_the_distribution_of_torchvisions() -> None:
    from torchvision.transforms import v2

    torch.manual_seed(0)
    one = v2.CutMix(num_classes=N)
    theirs = torch.tensor([one.make_params([torch.zeros(1, 3, 16, 16)])["lam_adjusted"] for _ in range(1500)])
    ours = torch.cat([own_and_partner(mixed(AugmentConfig(mix="cutmix"), seed)[2])[0] for seed in range(24)])
    assert abs(float(ours.mean() - theirs.mean())) < 0.04
    assert abs(float(ours.std() - theirs.std())) < 0.025


def test_either_takes_both_in_one_batch() -> None:
    cut = 0
    for seed in range(10):
        images, results, targets = mixed(AugmentConfig(mix="mixup_or_cutmix", mixup_alpha=1.0), seed)
        _, partner = own_and_partner(targets)
        whole = ((results == images) | (results == images[partner])).flatten(1).all(dim=1)
        assert 0.25 * N < int(whole.sum()) < 0.75 * N
        cut += int(whole.sum())
    assert abs(cut / (10 * N) - 0.5) < 0.09


def test_no_image_is_its_own_partner_and_the_neighbour_is_one_by_chance_alone() -> None:
    neighbours = 0
    for seed in range(50):
        partner = partners(N, a_draw(N, seed))
        assert torch.equal(partner.sort().values, torch.arange(N))
        assert not (partner == torch.arange(N)).any()
        neighbours += int((partner == (torch.arange(N) + 1) % N).sum())
    assert neighbours < 100  # 50 are expected
    assert partners(1, a_draw(1)).tolist() == [0]


def test_a_batch_is_mixed_with_its_probability_and_else_stays_whole() -> None:
    whole = 0
    for seed in range(300):
        images, results, targets = mixed(AugmentConfig(mix="mixup", mix_p=0.3), seed, size=2)
        if torch.equal(targets, torch.eye(N)):
            assert torch.equal(results, images)
            whole += 1
    assert abs(whole / 300 - 0.7) < 0.11


def test_without_mixing_the_targets_are_the_classes() -> None:
    images, results, targets = mixed(AugmentConfig())
    assert results is images
    assert torch.equal(targets, torch.eye(N))


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1.0, 3.0, 20.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    n = 40_000
    values = beta(alpha, n, a_draw(n))
    assert bool(values.isfinite().all())
    assert float(values.min()) >= 0
    assert float(values.max()) <= 1
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(float(values.mean()) - 0.5) < 4 * (variance / n) ** 0.5
    assert abs(float(values.var()) / variance - 1) < 0.04
    for bound in (0.001, 0.02, 0.1, 0.3, 0.45, 0.5, 0.7, 0.95, 0.999):
        share = float((values <= bound).float().mean())
        assert abs(share - float(betainc(alpha, alpha, bound))) < 4 * 0.5 / n**0.5
