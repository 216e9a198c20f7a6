"""Recipes: what they take the place of, what they leave as searched, and which mistakes in them are found."""

from pathlib import Path

import pytest

from nas.config import Candidate
from nas.errors import ConfigError
from nas.space.recipes import LONG_FROM, Recipe, load_recipe, read_recipe, recipe_names

SEARCHED = Candidate.model_validate(
    {
        "arch": {"stages": [{"blocks": 1, "channels": 8}], "stochastic_depth": 0.05},
        "train": {
            "epochs": 18,
            "batch_size": 64,
            "optimiser": "adam",
            "lr": 0.3,
            "adam_lr": 0.002,
            "label_smoothing": 0.07,
            "augment": {"crop_padding": 2, "flip": "horizontal", "rotation": 7.0, "erasing": 0.1},
        },
    }
)


KEYS = ("optimiser", "optimizer")


def recipe(text: str) -> Recipe:
    return read_recipe(text, Path("mine.yaml"))


def test_searched_recipe_changes_nothing_but_the_length() -> None:
    name, nothing = load_recipe("searched", 40)
    assert name == "searched"
    fitted = nothing.fit(SEARCHED, 40)
    assert fitted.train.epochs == 40
    assert fitted.model_copy(update={"train": fitted.train.model_copy(update={"epochs": 18})}) == SEARCHED


def test_recipe_takes_the_place_of_what_it_names_and_of_nothing_else() -> None:
    fitted = recipe("{train: {optimiser: sgd, lr: 0.1, batch_size: 128}}").fit(SEARCHED, 9)
    assert (fitted.train.optimiser, fitted.train.peak_lr, fitted.train.batch_size) == ("sgd", 0.1, 128)
    assert fitted.train.label_smoothing == 0.07
    assert fitted.train.augment == SEARCHED.train.augment
    assert fitted.arch == SEARCHED.arch


def test_a_recipe_that_contradicts_what_it_keeps_is_refused_in_a_sentence() -> None:
    hardest = SEARCHED.model_copy(update={"train": SEARCHED.train.model_copy(update={"hardest": 0.6})})
    assert load_recipe("long", 100)[1].fit(hardest, 100).train.hardest == 0.6
    with pytest.raises(ConfigError) as raised:
        load_recipe("long", 200)[1].fit(hardest, 200)
    assert raised.value.message == (
        "the recipe and the other training settings of the network contradict each other: "
        "hardest: 0.6 needs the loss of each image, and mix: cutmix mixes images; use mix: none"
    )
    assert raised.value.hint == "change one of the two in a recipe of your own, or use --recipe searched"


def test_optimizer_is_optimiser() -> None:
    british, american = (
        recipe(f"{{train: {{{key}: sgd, lr: 0.1}}, from_epochs: {{9: {{{key}: adam, lr: 0.01}}}}}}") for key in KEYS
    )
    assert british == american
    assert american.fit(SEARCHED, 8).train.optimiser == "sgd"
    assert american.fit(SEARCHED, 9).train.optimiser == "adam"


def test_augmentations_are_replaced_as_a_whole_but_for_crop_and_mirror() -> None:
    augment = recipe("{train: {augment: {policy: randaugment}}}").fit(SEARCHED, 9).train.augment
    assert augment.policy == "randaugment"
    assert (augment.rotation, augment.erasing) == (0.0, 0.0)
    assert (augment.crop_padding, augment.flip) == (2, "horizontal")


def test_images_that_the_search_did_not_mirror_are_not_mirrored() -> None:
    augment = SEARCHED.train.augment.model_copy(update={"flip": "none"})
    digits = SEARCHED.model_copy(update={"train": SEARCHED.train.model_copy(update={"augment": augment})})
    assert recipe("{train: {augment: {flip: alternating}}}").fit(digits, 9).train.augment.flip == "none"
    assert recipe("{train: {augment: {flip: alternating}}}").fit(SEARCHED, 9).train.augment.flip == "alternating"


def test_longer_runs_get_what_is_meant_for_them() -> None:
    staged = recipe("{train: {label_smoothing: 0.1}, from_epochs: {200: {label_smoothing: 0.3}, 50: {label_smoothing: 0.2}}}")
    assert [staged.fit(SEARCHED, epochs).train.label_smoothing for epochs in (49, 50, 199, 200, 999)] == [0.1, 0.2, 0.2, 0.3, 0.3]


def test_stochastic_depth_grows_with_the_length_up_to_its_rate() -> None:
    deep = recipe("stochastic_depth: {rate: 0.2, at_epochs: 300}")
    assert [deep.fit(SEARCHED, epochs).arch.stochastic_depth for epochs in (30, 150, 300, 600)] == [0.02, 0.1, 0.2, 0.2]


@pytest.mark.parametrize("name", [name for name in recipe_names() if name not in ("searched", "auto")])
def test_every_shipped_recipe_is_whole(name: str) -> None:
    found, shipped = load_recipe(name, 100)
    assert found == name
    assert shipped.about
    assert shipped.epochs
    for epochs in (1, 80, 400):
        train = shipped.fit(SEARCHED, epochs).train
        record = name == "record"  # other settings, tried with plain networks alone
        assert train.decay_norm_and_bias == record
        assert (train.ema_epochs > 0) != record
        assert train.hardest == (0.6 if record else 1.0)
        assert train.label_smoothing > 0
        assert train.schedule == ("linear" if name in ("fast", "record") else "warmup_cosine")


def test_short_schedules_get_one_strong_augmentation_at_most() -> None:
    for name in ("fast", "long"):
        augment = load_recipe(name, 100)[1].fit(SEARCHED, 100).train.augment
        assert (augment.policy != "none") + (augment.mix != "none") + (augment.cutout > 0) <= 1


def test_auto_goes_by_the_length() -> None:
    assert [load_recipe("auto", epochs)[0] for epochs in (1, LONG_FROM - 1, LONG_FROM, 1000)] == ["fast", "fast", "long", "long"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "mine.yaml: must be a mapping of keys to values, but is [1, 2]"),
        ("trian: {}", "mine.yaml: trian: unknown key"),
        ("train: {epochs: 3}", "mine.yaml: train: epochs: set the recipe's own key `epochs`"),
        ("train: {epoch_images: 3}", "mine.yaml: train: epoch_images: leave it out; `nas retrain --compute` sets"),
        (
            "from_epochs: {50: {optimizer: sgd, optimiser: sgd}}",
            "mine.yaml: from_epochs: 50.optimizer: is given with optimiser",
        ),
        ("train: {lr: 0.1}", "mine.yaml: train: lr: set optimiser, too"),
        ("train: {label_smoothing: 2}", "mine.yaml: train: label_smoothing: must be less than 1 (got 2)"),
        ("from_epochs: {50: {batch: 3}}", "mine.yaml: from_epochs: 50.batch: unknown key"),
        ("tta: mirror", "mine.yaml: tta: must be 'none', 'flip' or 'flip_shift' (got 'mirror')"),
        ("epochs: 3\nepochs: 4", "mine.yaml: not valid YAML: key 'epochs' is given twice"),
    ],
)
def test_mistakes_name_the_file_the_key_and_the_rule(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        recipe(text)
    assert refused.value.message.startswith(message)
