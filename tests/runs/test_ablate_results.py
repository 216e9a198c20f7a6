"""Ablations: rows, differences to the base and effects, against numbers worked out by hand."""

import pytest

from nas.config import ArchConfig, Candidate, DataConfig, ImageShape, StageConfig
from nas.report.experiments import ablation_charts, ablation_sentences, effects_table, figures_table, runs_table, variants_table
from nas.runs.ablate import Ablation, make_rows
from nas.runs.ablate_design import Definition, Variant, parse_factors
from nas.runs.card import BySeed, HeldOut, ModelCard
from nas.study.settings import Environment

BASE = Candidate(arch=ArchConfig(stages=(StageConfig(blocks=1, channels=8),)))
HERE = Environment.now()


def card(accuracy: float, seed: int, candidate: Candidate = BASE) -> ModelCard:
    return ModelCard(
        study="s",
        subject="trial 0",
        candidate=candidate,
        params=1,
        macs=1,
        shape=ImageShape(channels=1, size=8, classes=10),
        classes=tuple("0123456789"),
        mean=(0.0,),
        std=(1.0,),
        data=DataConfig(dataset="digits"),
        data_fingerprint="f",
        train_images=100,
        includes_test_labels=False,
        seed=seed,
        search_accuracy=None,
        held_out=HeldOut(images=200, accuracy=accuracy, shifted_accuracy=accuracy / 2),
        tta="none",
        seconds=10.0 + seed,
        device="cpu",
        precision="fp32",
        environment=HERE,
    )


def cards(*accuracies: float) -> dict[int, ModelCard]:
    return {seed: card(accuracy, seed) for seed, accuracy in enumerate(accuracies)}


def variant(name: str, levels: dict[str, str], over: str | None = None, same_as: str | None = None) -> Variant:
    return Variant(name=name, levels=levels, candidate=BASE, params=1234, macs=5_000_000, over=over, same_as=same_as)


def ablation(
    trained: dict[str, dict[int, ModelCard]],
    variants: tuple[Variant, ...],
    texts: tuple[str, ...],
    grid: bool = False,
    seeds: int = 3,
    diverged: dict[str, tuple[int, ...]] | None = None,
) -> Ablation:
    settings = {"subject": "trial 7", "recipe": "searched", "fixed": {}, "hold_out": 0.1, "train_subset": None}
    factors = parse_factors(BASE, texts, grid)
    definition = Definition(
        **settings, factors=factors, grid=grid, seeds=tuple(range(seeds)), variants=variants, environment=HERE
    )
    runs = {
        one.name: BySeed(cards=trained.get(one.name, {}), diverged=(diverged or {}).get(one.name, ()))
        for one in variants
        if one.same_as is None
    }
    return Ablation("mine", definition, make_rows(definition, runs))


def test_pairs_tell_what_the_means_alone_do_not() -> None:
    """Seeds that differ by ten points, and a choice that is worth one in each."""
    base, other = variant("base", {}), variant("activation-gelu", {"activation": "gelu"})
    trained = {"base": cards(0.60, 0.70, 0.80), "activation-gelu": cards(0.611, 0.709, 0.810)}
    found = ablation(trained, (base, other), ("activation=gelu",))
    difference = found.rows[1].difference
    # 1.1, 0.9 and 1.0 points: mean 1.0, deviation 0.1, half an interval 4.302653 × 0.1 / √3 = 0.248414.
    assert difference.mean == pytest.approx(0.01)
    assert difference.deviation == pytest.approx(0.001)
    assert difference.interval == pytest.approx((0.00751586, 0.01248414))
    assert found.rows[1].shifted_difference.mean == pytest.approx(0.005)
    assert found.rows[0].difference is None

    table = variants_table(found)
    assert table.rows[0][:6] == ("base", "1,234", "5M", "3", "70.00 ± 10.00", "")
    assert table.rows[1][3:9] == ("3", "71.00 ± 9.95", "+1.00", "+0.75 to +1.25", "35.50 ± 4.98", "+0.50")
    assert (
        ablation_sentences(found)[-1]
        == "1 of 1 difference is significant (95 % interval without 0): activation gelu +1.00 (+0.75 to +1.25) points."
    )
    assert table.latex().count(r"$\pm$") == 4
    assert runs_table(found).rows[3] == ("activation-gelu", "gelu", "0", "0.611000", "0.305500", "10.0")
    figures = dict(zip(figures_table(found).columns, figures_table(found).rows[1], strict=True))
    assert figures["activation"] == "gelu"
    assert figures["difference_low"] == "0.007516"
    assert figures["difference_high"] == "0.012484"
    (chart,) = ablation_charts(found)
    dots, means = chart.figure.data
    assert dots.x == pytest.approx((1.1, 0.9, 1.0))
    assert means.x == pytest.approx((1.0,))
    assert means.error_x.array == pytest.approx((0.248414,))


def test_what_is_missing_is_said() -> None:
    base, over = variant("base", {}), variant("blocks-9", {"blocks": "9"}, over="9: over the budget of 5")
    adam = variant("optimiser-adam", {"optimiser": "adam"})
    texts = ("blocks=9", "optimiser=adam")
    found = ablation({"base": cards(0.5, 0.6)}, (base, over, adam), texts, diverged={"optimiser-adam": (0, 1)})
    assert (found.ended, found.expected) == (4, 9)
    table = variants_table(found)
    assert [row[-1] for row in table.rows] == ["", "over budget", "diverged with seed 0, 1"]
    assert table.rows[1][3:7] == ("0", "", "", "")
    said = ablation_sentences(found)
    assert "4 of 9 trainings have finished." in said[0]
    assert said[1] == "Over the study's budget: blocks 9 (9: over the budget of 5)."
    assert said[2:] == ["Diverged, and left out of means and differences: optimiser adam with seed 0, 1."]
    assert ablation_charts(found) == []


@pytest.mark.parametrize(
    ("base", "gelu", "said"),
    [
        # On few images scores are few, and two seeds are soon alike: no proof that a third one is.
        ((0.5, 0.1), (0.6, 0.2), "Differences from one seed, or equal for all seeds, have no"),
        ((0.5,), (0.6,), "With one seed there is no interval"),
    ],
)
def test_one_seed_or_seeds_that_all_say_the_same_have_no_interval(
    base: tuple[float, ...], gelu: tuple[float, ...], said: str
) -> None:
    pair = variant("base", {}), variant("activation-gelu", {"activation": "gelu"})
    trained = {"base": cards(*base), "activation-gelu": cards(*gelu)}
    found = ablation(trained, pair, ("activation=gelu",), seeds=len(base))
    assert variants_table(found).rows[1][5:7] == ("+10.00", "")
    assert ablation_sentences(found)[-1].startswith(said)
    assert ablation_charts(found)[0].figure.data[1].error_x.array == (0.0,)


def test_the_study_s_metric_judges() -> None:
    def judged(accuracy: float, f1: float) -> dict[int, ModelCard]:
        scores = HeldOut(images=200, accuracy=accuracy, shifted_accuracy=accuracy, score=f1, shifted_score=f1 / 2)
        return {0: card(accuracy, 0).model_copy(update={"metric": "macro_f1", "held_out": scores})}

    pair = variant("base", {}), variant("activation-gelu", {"activation": "gelu"})
    found = ablation({"base": judged(0.9, 0.5), "activation-gelu": judged(0.8, 0.6)}, pair, ("activation=gelu",), seeds=1)
    table = variants_table(found)
    assert table.columns[4] == "macro F1 (%)"
    assert table.rows[1][4:9] == ("60.00", "+10.00", "", "30.00", "+5.00")
    assert runs_table(found).columns[3] == "macro_f1"
    assert runs_table(found).rows[1][3:5] == ("0.600000", "0.300000")
    assert "macro_f1" in figures_table(found).columns
    assert ablation_charts(found)[0].caption.startswith("Macro F1 on the held-out images")


def test_effects_of_a_grid_are_means_over_the_other_factors() -> None:
    levels: list[dict[str, str]] = [{}, {"activation": "gelu"}, {"optimiser": "adam"}]
    names = ("base", "activation-gelu", "optimiser-adam", "both")
    made = tuple(
        variant(name, level) for name, level in zip(names, [*levels, {"optimiser": "adam", "activation": "gelu"}], strict=True)
    )
    trained = {
        "base": cards(0.50, 0.60, 0.70),
        "activation-gelu": cards(0.52, 0.62, 0.74),
        "optimiser-adam": cards(0.60, 0.60),
        "both": cards(0.64, 0.66, 0.70),
    }
    found = ablation(trained, made, ("optimiser=sgd,adam", "activation=relu,gelu"), grid=True)
    adam, gelu = found.effects
    # Seed 0: (0.60 + 0.64)/2 - (0.50 + 0.52)/2 = 0.11; seed 1: 0.63 - 0.61 = 0.02; of seed 2 one network is missing.
    assert (adam.factor, adam.level, adam.reference) == ("optimiser", "adam", "sgd")
    assert adam.difference.values == pytest.approx((0.11, 0.02))
    # Seed 0: (0.52 + 0.64)/2 - (0.50 + 0.60)/2 = 0.03; seed 1: 0.64 - 0.60 = 0.04.
    assert gelu.difference.values == pytest.approx((0.03, 0.04))
    assert gelu.difference.mean == pytest.approx(0.035)
    table = effects_table(found)
    assert table.rows[1][:4] == ("activation gelu", "relu", "2", "+3.50")


def test_what_shares_its_runs_shares_its_scores() -> None:
    made = (
        variant("base", {}),
        variant("momentum-0.8", {"momentum": "0.8"}),
        variant("optimiser-adam", {"optimiser": "adam"}),
        variant("both", {"optimiser": "adam", "momentum": "0.8"}, same_as="optimiser-adam"),
    )
    trained = {"base": cards(0.5), "momentum-0.8": cards(0.7), "optimiser-adam": cards(0.4)}
    found = ablation(trained, made, ("optimiser=sgd,adam", "momentum=0.9,0.8"), grid=True, seeds=1)
    assert (found.ended, found.expected) == (3, 3)
    assert found.rows[3].over_seeds("clean") == found.rows[2].over_seeds("clean")
    assert variants_table(found).rows[3][0] == "optimiser adam, momentum 0.8 (as optimiser-adam)"
    assert len(runs_table(found).rows) == 3
