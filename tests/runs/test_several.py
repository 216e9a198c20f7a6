"""Several networks by several seeds: over real workers, gone on with, chosen on images that none trained on."""

from dataclasses import replace

import pytest

from nas.errors import ConfigError
from nas.paths import StudyPaths
from nas.runs.card import HeldOut, read_card
from nas.runs.load import load_network
from nas.runs.retrain import Retrained, retrain_several
from nas.runs.select import Network, find_names, finished_runs
from nas.specs import RetrainSpec, SeveralSpec
from tests.runs.told import Told, trained


def train(request: SeveralSpec, told: Told) -> Retrained:
    return retrain_several(request, told.on_plan, told, told.stop)


@pytest.fixture
def request_of(study: StudyPaths) -> SeveralSpec:
    base = RetrainSpec(study, epochs=2, train_subset=200, hold_out=0.2, device="cpu")
    return SeveralSpec(base, find_names(study, ["top:2"]), (0, 1))


def test_all_are_trained_judged_and_one_is_chosen_before_the_test_set_is_opened(
    study: StudyPaths, request_of: SeveralSpec
) -> None:
    cut_off = Told(stop_after=3)
    suspended = train(request_of, cut_off)
    assert suspended.suspended >= 2
    assert suspended.chosen is None
    before = len(finished_runs(study))

    told = Told()
    done = train(request_of, told)
    plans, pending, _ = told.planned
    assert len(plans) - len(pending) == before - 1, "one of the study's own is there, too"
    assert done.suspended == 0
    assert done.failures == {}
    assert [len(network.runs) for network in done.networks] == [2, 2]
    cards = [card for network in done.networks for card in network.cards.values()]
    assert {card.seed for card in cards} == {0, 1}
    assert {card.train_images for card in cards} == {200}
    assert {card.held_out.images for card in cards if card.held_out} == {288}
    assert done.chosen is done.networks[0]
    means = [network.over_seeds("clean").mean for network in done.networks]
    assert means == sorted(means, reverse=True)
    assert [card.test_accuracy is not None for card in cards] == [True, True, False, False]
    assert done.best == done.chosen.best_run("clean")

    again = Told()
    assert train(request_of, again) == done
    assert again.planned is None

    # Among others as alone.
    run, card = done.chosen.runs[0], done.chosen.cards[0]
    alone = replace(request_of.base, which=card.subject.removeprefix("trial "), seed=card.seed)
    assert trained(alone, again) == (run, card)
    assert again.planned is None
    model, _ = load_network(run)
    (run.folder / "model.json").unlink()
    fresh, fresh_card = trained(alone)
    assert fresh_card.held_out == card.held_out
    for name, tensor in load_network(fresh)[0].state_dict().items():
        assert tensor.equal(model.state_dict()[name]), name


def test_without_images_held_out_the_search_chooses(study: StudyPaths, request_of: SeveralSpec) -> None:
    request = replace(request_of, base=replace(request_of.base, hold_out=0.0, epochs=1), seeds=(0,))
    done = train(request, Told())
    assert done.chosen is not None
    searched = [network.card.search_accuracy for network in done.networks]
    assert searched == sorted(searched, key=lambda accuracy: -(accuracy or 0.0))
    assert [network.card.test_accuracy is not None for network in done.networks] == [True, False]


def test_choice_by_shifted_images_needs_some_that_are_held_out(request_of: SeveralSpec) -> None:
    with pytest.raises(ConfigError, match="--choose-by shifted needs held-out images"):
        train(replace(request_of, base=replace(request_of.base, hold_out=0.0), by="shifted"), Told())


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_mean_deviation_and_best_run_by_either_criterion_and_what_the_study_judges_by(metric: str, study: StudyPaths) -> None:
    card = read_card(finished_runs(study)[0]).model_copy(update={"metric": metric})

    def network(*scores: tuple[float, float]) -> Network:
        cards = {}
        for seed, (clean, shifted) in enumerate(scores):
            other = {"accuracy": 1 - clean, "shifted_accuracy": 1 - shifted, "score": clean, "shifted_score": shifted}
            values = other if metric == "macro_f1" else {"accuracy": clean, "shifted_accuracy": shifted}
            cards[seed] = card.model_copy(update={"held_out": HeldOut(images=100, **values)})
        return Network(cards=cards, runs={seed: study.trial(seed) for seed in cards})

    one = network((0.90, 0.70), (0.94, 0.60))
    assert one.scores("clean") == {0: 0.90, 1: 0.94}
    assert one.over_seeds("clean").mean == pytest.approx(0.92)
    assert one.over_seeds("clean").deviation == pytest.approx(0.02828427)
    assert one.over_seeds("shifted").mean == pytest.approx(0.65)
    assert one.best_run("clean") == (one.runs[1], one.cards[1])
    assert one.best_run("shifted") == (one.runs[0], one.cards[0])
    assert network((0.9, 0.7)).over_seeds("clean").deviation is None
