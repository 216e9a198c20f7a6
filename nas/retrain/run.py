"""Trains a chosen network, a study's or a preset's, on all the labelled training data and keeps what is needed to use it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from nas.budget import count_macs, count_params
from nas.config import DataConfig
from nas.data.cache import Progress as DecodingProgress
from nas.data.cache import silent
from nas.data.datasets import Dataset, ImageSet, load_dataset, require_known
from nas.data.images import JoinedSet
from nas.data.loader import Resident
from nas.data.material import Chosen, choose_material
from nas.data.shift import shifted
from nas.data.stream import place
from nas.data.tables import moved
from nas.errors import DataError, StudyError
from nas.files import write_whole
from nas.models import build_model
from nas.paths import StudyPaths, TrialPaths, study_paths
from nas.presets import load_preset, preset_names
from nas.retrain.card import HeldOut, ModelCard, card_file, read_card, weights_file, write_card
from nas.retrain.evaluation import Evaluation, judge, write_evaluation
from nas.retrain.order import Order, RetrainRequest, held, make_order
from nas.retrain.parts import in_parts
from nas.retrain.places import Places, pick_places
from nas.retrain.recorded import record_run
from nas.retrain.together import train_together
from nas.search.patience import Patience
from nas.search.settings import PRESETS_SPACE, Environment, Overrides, StudySettings, read_settings
from nas.subjects import find_subject
from nas.train.device import Precision, pick_precision, tune_process
from nas.train.evaluate import never
from nas.train.loop import EpochMetrics, Status, read_curve, trained_weights
from nas.train.rank import Training

SHIFT_SEED = 0
"""Of the simulated shift, the same for all networks, so that they can be compared."""


@dataclass(frozen=True)
class RetrainPlan:
    """What will be done, shown before it begins."""

    order: Order
    params: int
    train_images: int
    held_out: int
    device: str
    precision: str


@dataclass(frozen=True)
class Retrained:
    run: TrialPaths
    card: ModelCard | None
    """None where it was suspended."""
    already_there: bool = False


def found_presets_study(data: DataConfig, name: str | None = None, decoding: DecodingProgress = silent) -> StudyPaths:
    """A study without trials, by default `presets-<data set>`, where presets are trained that belong to no search.

    Raises StudyError where that study was made for another data set.
    """
    require_known(data.dataset)
    paths = study_paths(name or f"{PRESETS_SPACE}-{data.dataset}")
    if paths.settings.is_file():
        theirs = read_settings(paths).data
        if theirs.dataset != data.dataset or (data.folder and theirs.folder != data.folder):
            raise StudyError(
                f"study {paths.name!r} is for {_where(theirs)}, not for {_where(data)}",
                hint="keep them apart with --study NAME; if the same images have moved, name the study and leave --dataset out",
            )
    else:
        dataset = load_dataset(data, decoding)
        settings = StudySettings(
            space=PRESETS_SPACE,
            overrides=Overrides(),
            parameters={},
            budget=load_preset(preset_names()[0]).budget,
            data=data,
            data_fingerprint=dataset.fingerprint,
            shape=dataset.shape,
            seed=0,
            environment=Environment.now(),
        )
        paths.folder.mkdir(parents=True, exist_ok=True)
        paths.settings.write_text(settings.to_json())
    return paths


def _where(data: DataConfig) -> str:
    return f"{data.dataset} in {data.folder}" if data.folder else data.dataset


@dataclass(frozen=True)
class Workshop:
    """What every retraining of a command shares."""

    paths: StudyPaths
    settings: StudySettings
    folder: str | None
    """Of the data, if it has moved since the search."""
    dataset: Dataset
    chosen: Chosen
    places: Places
    precision: Precision

    @property
    def device(self) -> torch.device:
        return self.places.device

    @property
    def data(self) -> DataConfig:
        """Where the images lie now."""
        data = self.settings.data
        return data if self.folder is None else moved(data, self.folder)

    def place(self, images: ImageSet | JoinedSet, indices: np.ndarray | None = None) -> Resident:
        return place(images, self.dataset.mean, self.dataset.std, self.device, indices)


def open_workshop(request: RetrainRequest, decoding: DecodingProgress = silent) -> Workshop:
    """Raises NasError."""
    settings = read_settings(request.paths)
    places = pick_places(request.device, request.gpus, request.compiled)
    tune_process(places.device)
    dataset = study_data(settings, request.data_folder, decoding)
    chosen = choose_material(dataset, settings.data, request.material)
    return Workshop(request.paths, settings, request.data_folder, dataset, chosen, places, pick_precision(places.device))


def retrain(
    request: RetrainRequest,
    on_start: Callable[[RetrainPlan], None],
    on_epoch: Callable[[EpochMetrics], None],
    should_suspend: Callable[[], bool] = never,
    decoding: DecodingProgress = silent,
    note: Callable[[str], None] = lambda text: None,
) -> Retrained:
    """One training, in this process. Goes on from its checkpoint where it was suspended before. `note` hears what else happens.
    Raises NasError."""
    find_subject(request.paths, request.which)  # a mistake there is said before any image is read
    shop = open_workshop(request, decoding)
    order = make_order(request, shop.settings, shop.dataset, shop.chosen, shop.device, shop.precision, note)
    if card_file(order.run).is_file():
        return Retrained(order.run, read_card(order.run), already_there=True)
    compiled = shop.device.type == "cuda" if request.compiled is None else request.compiled
    with held([order]):
        on_start(begin(order, shop))
        status = _train(order, shop, on_epoch, should_suspend, note, compiled)
        return Retrained(order.run, None if status == "suspended" else finish(order, shop, note, opens_test=True))


def begin(order: Order, shop: Workshop) -> RetrainPlan:
    """Raises ConfigError where a batch cannot be shared out."""
    write_whole(order.run.candidate, order.candidate.to_json().encode())
    params = count_params(order.candidate.arch, shop.dataset.shape)
    held_out = 0 if shop.chosen.hold_out is None else len(shop.chosen.hold_out)
    shop.places.require_share(min(order.candidate.train.batch_size, shop.chosen.train_images))
    return RetrainPlan(order, params, shop.chosen.train_images, held_out, shop.places.name, shop.precision.name)


def _train(
    order: Order,
    shop: Workshop,
    on_epoch: Callable[[EpochMetrics], None],
    should_suspend: Callable[[], bool],
    note: Callable[[str], None],
    compiled: bool,
) -> Status:
    """In this process, or in several together. Raises StudyError."""

    def attempt(parts: int) -> Status:
        training = Training(
            run=order.run,
            candidate=order.candidate,
            shape=shop.dataset.shape,
            data=shop.data,
            material=order.material,
            seed=order.mixed_seed,
            identity=order.identity,
            micro_batches=parts,
        )
        if shop.places.processes > 1:
            return train_together(training, shop.places, on_epoch, should_suspend)
        return _train_here(training, shop, on_epoch, should_suspend, note, compiled)

    smaller = "retrain a smaller network (nas list shows them), or use another --device"
    batch, parts = order.candidate.train.batch_size, order.subject.micro_batches
    status = in_parts(attempt, batch, parts, order.subject.title, order.run, shop.device, note, smaller)
    if status == "diverged":
        raise _diverged(order)
    return status


def _train_here(
    training: Training,
    shop: Workshop,
    on_epoch: Callable[[EpochMetrics], None],
    should_suspend: Callable[[], bool],
    note: Callable[[str], None],
    compiled: bool,
) -> Status:
    """Waits for room on a full disk."""
    again = "the same nas retrain"
    patience = Patience(training.run.folder.name, note, should_suspend, "the run's folder", doing="training", again=again)

    def heard(metrics: EpochMetrics) -> bool:
        on_epoch(metrics)
        return True

    data = shop.place(shop.chosen.images, shop.chosen.train)
    return training.fit(data, heard, should_suspend, note if compiled else None, patience.write).status


def _diverged(order: Order) -> StudyError:
    return StudyError(
        f"the loss became infinite or NaN in epoch {len(read_curve(order.run.metrics)) + 1}, "
        f"at a peak learning rate of {order.candidate.train.peak_lr:g}",
        hint="retrain another trial (nas list shows them), or try another --seed",
    )


# ----------------------------------------------------------------------------------------------------- after the training


def finish(order: Order, shop: Workshop, note: Callable[[str], None], opens_test: bool, in_ledger: bool = True) -> ModelCard:
    """Makes a trained run of a training that has ended, from its checkpoint: weights, judgements, and the card last, which makes
    it a finished one. Records it, unless it is none of the study's retrained networks."""
    model, curve = _trained(order, shop)
    held_out = judge_held_out(model, order.tta, shop)
    card = ModelCard(
        study=shop.paths.name,
        subject=order.subject.title,
        recipe=order.recipe,
        candidate=order.candidate,
        params=count_params(order.candidate.arch, shop.dataset.shape),
        macs=count_macs(order.candidate.arch, shop.dataset.shape),
        shape=shop.dataset.shape,
        classes=shop.dataset.classes,
        mean=shop.dataset.mean,
        std=shop.dataset.std,
        data=shop.settings.data,
        data_fingerprint=shop.dataset.fingerprint,
        train_images=shop.chosen.train_images,
        includes_test_labels=order.material.include_test_labels,
        seed=order.seed,
        search_accuracy=order.subject.accuracy,
        metric=shop.settings.study.metric,
        held_out=held_out,
        tta=order.tta,
        seconds=round(sum(metrics.seconds for metrics in curve), 1),
        device=shop.places.name,
        processes=shop.places.processes,
        precision=shop.precision.name,
        environment=Environment.now(),
    )
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, weights_file(order.run))
    if opens_test:
        card = with_test(card, order.run, model, shop)
    card = seal(order.run, card, shop, note) if in_ledger else write_card(order.run, card)
    order.run.checkpoint.unlink(missing_ok=True)
    return card


def seal(run: TrialPaths, card: ModelCard, shop: Workshop, note: Callable[[str], None]) -> ModelCard:
    """Writes the card, with the hashes of what lies beside it, and its row in the ledger."""
    sealed = write_card(run, card)
    record_run(shop.paths, run, note)
    return sealed


def _trained(order: Order, shop: Workshop) -> tuple[nn.Module, list[EpochMetrics]]:
    """The averaged network, or the only one. Raises StudyError where the checkpoint does not hold it."""
    weights, found = trained_weights(order.run.checkpoint, order.identity)
    if weights is None:
        raise StudyError(
            f"{order.run.checkpoint}, which held the trained network, is {'gone' if found == 'none' else found}",
            hint="the same command trains it again",
        )
    model = build_model(order.candidate.arch, shop.dataset.shape)
    model.load_state_dict(weights)
    model = model.to(shop.device).to(memory_format=torch.channels_last)
    return model, read_curve(order.run.metrics)


def judge_held_out(model: nn.Module, tta: str, shop: Workshop) -> HeldOut | None:
    """As a submission would be predicted."""
    chosen = shop.chosen
    if chosen.hold_out is None:
        return None
    images, metric = shop.dataset.train.only(chosen.hold_out), shop.settings.study.metric
    both = clean_and_shifted(model, images, tta, shop)
    accuracy, shifted_accuracy = (judged.accuracy for judged in both)
    score, shifted_score = (None if metric == "accuracy" else judged.score(metric) for judged in both)
    return HeldOut(
        images=len(images),
        accuracy=accuracy,
        shifted_accuracy=shifted_accuracy,
        score=score,
        shifted_score=shifted_score,
    )


def clean_and_shifted(model: nn.Module, images: ImageSet, tta: str, shop: Workshop) -> tuple[Evaluation, Evaluation]:
    """What it says of the images, and of the same ones under a simulated shift."""
    changed = shifted(images, None, SHIFT_SEED)
    clean = judge(model, shop.place(images), images, tta)
    return clean, judge(model, shop.place(changed), changed, tta)


def with_test(card: ModelCard, run: TrialPaths, model: nn.Module, shop: Workshop) -> ModelCard:
    """The card with what the network says of the official test set. The same card where there is none, or it was trained on."""
    return card if card.includes_test_labels else card.model_copy(update=judge_test(model, card.tta, run, shop))


def judge_test(model: nn.Module, tta: str, run: TrialPaths, shop: Workshop) -> dict[str, float]:
    """The fields of a card that tell what the network says of the official test set: the only place where that is opened. Keeps
    the evaluation beside it. Empty where there is none."""
    test = shop.dataset.test
    if test is None:
        return {}
    judged, under_shift = clean_and_shifted(model, test, tta, shop)
    plain = judged if tta == "none" else judge(model, shop.place(test), test, "none")
    write_evaluation(run, judged)
    return {
        "test_images": len(test),
        "test_accuracy": plain.accuracy,
        "test_accuracy_tta": judged.accuracy,
        "test_balanced_accuracy": judged.score("balanced_accuracy"),
        "test_macro_f1": judged.score("macro_f1"),
        "test_shifted_accuracy": under_shift.accuracy,
    }


# ---------------------------------------------------------------------------------------------------------- the data


def study_data(settings: StudySettings, folder: str | None, decoding: DecodingProgress) -> Dataset:
    """The study's data set, from `folder` if it has moved. Raises DataError where it is not the one that was searched with."""
    config = settings.data if folder is None else moved(settings.data, folder)
    dataset = load_dataset(config, decoding)
    if dataset.fingerprint != settings.data_fingerprint:
        raise DataError(
            f"the images or labels of {config.folder or config.dataset} are not those that the study was searched with",
            hint="name the folder that holds them with --data FOLDER, or search anew under another name",
        )
    return dataset
