"""Trains a chosen network, a study's or a preset's, on all the labelled training data and keeps what is needed to use it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from safetensors.torch import save_file

from nas.budget import count_macs, count_params
from nas.config import Candidate, DataConfig, check_epochs
from nas.data.cache import Progress as DecodingProgress
from nas.data.cache import silent
from nas.data.datasets import UNMIRRORED, Dataset, ImageSet, load_dataset, require_known, stratified
from nas.data.images import JoinedSet
from nas.data.loader import TrainBatches, mix_seed
from nas.data.stream import place
from nas.errors import ConfigError, DataError, StudyError
from nas.models import build_model
from nas.paths import StudyPaths, TrialPaths, study_paths
from nas.presets import PREFIX, load_preset, preset_names
from nas.retrain.card import ModelCard, card_file, read_card, weights_file
from nas.retrain.evaluation import Evaluation, judge, write_evaluation
from nas.search.settings import PRESETS_SPACE, Environment, Overrides, StudySettings, read_settings
from nas.subjects import Subject, find_subject
from nas.train.device import device_name, pick_device, pick_precision, tune_process
from nas.train.evaluate import fitting_tta
from nas.train.loop import EpochMetrics, FitResult, fit


@dataclass(frozen=True)
class RetrainRequest:
    paths: StudyPaths
    which: str = "best"
    """`best`, a trial's number, or `preset:NAME`."""
    epochs: int | None = None
    seed: int = 0
    include_test_labels: bool = False
    train_subset: int | None = None
    """Train on so many of the images only, stratified: for trying things out."""
    data_folder: str | None = None
    """Where the data lies now, if it has moved since the search."""
    device: str = "auto"
    compiled: bool | None = None
    """By torch.compile; None compiles on CUDA."""


@dataclass(frozen=True)
class RetrainPlan:
    """What will be done, shown before it begins."""

    run: TrialPaths
    subject: str
    candidate: Candidate
    params: int
    train_images: int
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


def retrain(
    request: RetrainRequest,
    on_start: Callable[[RetrainPlan], None],
    on_epoch: Callable[[EpochMetrics], None],
    should_suspend: Callable[[], bool] = lambda: False,
    decoding: DecodingProgress = silent,
    note: Callable[[str], None] = lambda text: None,
) -> Retrained:
    """Goes on from its checkpoint where it was suspended before. `note` hears what else happens. Raises NasError."""
    if request.epochs is not None:
        check_epochs(request.epochs)
    paths = request.paths
    settings = read_settings(paths)
    subject = find_subject(paths, request.which)
    epochs = request.epochs or subject.default_epochs
    candidate = subject.candidate
    if subject.title.startswith(PREFIX) and settings.data.dataset in UNMIRRORED:
        candidate = unmirrored_candidate(candidate)
    candidate = candidate.model_copy(update={"train": candidate.train.model_copy(update={"epochs": epochs})})
    run = TrialPaths(paths.retrained / run_name(subject, epochs, request))
    if card_file(run).is_file():
        return Retrained(run, read_card(run), already_there=True)
    device = pick_device(request.device)
    tune_process(device)
    precision = pick_precision(device)
    dataset = study_data(settings, request.data_folder, decoding)
    everything = labelled_images(dataset, request.include_test_labels)
    chosen = None
    if request.train_subset is not None:
        if not len(dataset.classes) <= request.train_subset <= len(everything):
            raise ConfigError(
                f"--train-subset takes {len(dataset.classes)} to {len(everything)} images, not {request.train_subset}"
            )
        share = request.train_subset / len(everything)
        chosen = stratified(everything.labels, share, settings.data.seed, total=request.train_subset)
    data = place(everything, dataset.mean, dataset.std, device, chosen)
    params = count_params(candidate.arch, dataset.shape)
    run.folder.mkdir(parents=True, exist_ok=True)
    run.candidate.write_text(candidate.to_json())
    on_start(RetrainPlan(run, subject.title, candidate, params, len(data), device_name(device), precision.name))

    def heard(metrics: EpochMetrics) -> bool:
        on_epoch(metrics)
        return True

    compiled = device.type == "cuda" if request.compiled is None else request.compiled
    seed = mix_seed(settings.seed, int(candidate.digest, 16), request.seed)
    torch.manual_seed(seed)
    batches = TrainBatches(
        data,
        candidate.train.batch_size,
        candidate.train.augment,
        seed,
        classes=len(dataset.classes),
        balanced=candidate.train.class_balance == "sampling",
    )
    result = fit(
        build_model(candidate.arch, dataset.shape),
        batches,
        None,
        candidate.train,
        heard,
        paths=run,
        precision=precision,
        seed=seed,
        identity=f"{candidate.digest} seed {seed} images {len(data)}",
        micro_batches=subject.micro_batches,
        should_suspend=should_suspend,
        compiling=note if compiled else None,
    )
    if result.status == "suspended":
        return Retrained(run, None)
    _require_converged(result, candidate)
    tta = fitting_tta(candidate.train.augment)
    judged = _official_test(result, dataset, request.include_test_labels, device, tta)
    card = ModelCard(
        study=paths.name,
        subject=subject.title,
        candidate=candidate,
        params=params,
        macs=count_macs(candidate.arch, dataset.shape),
        shape=dataset.shape,
        classes=dataset.classes,
        mean=dataset.mean,
        std=dataset.std,
        data=settings.data,
        data_fingerprint=dataset.fingerprint,
        train_images=len(data),
        includes_test_labels=request.include_test_labels,
        seed=request.seed,
        search_accuracy=subject.accuracy,
        metric=settings.study.metric,
        test_images=None if judged is None else len(judged[0].labels),
        test_accuracy=None if judged is None else judged[1],
        test_accuracy_tta=None if judged is None else judged[0].accuracy,
        test_balanced_accuracy=None if judged is None else judged[0].score("balanced_accuracy"),
        test_macro_f1=None if judged is None else judged[0].score("macro_f1"),
        tta=tta,
        seconds=round(sum(metrics.seconds for metrics in result.curve), 1),
        device=device_name(device),
        precision=precision.name,
        environment=Environment.now(),
    )
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in result.model.state_dict().items()}
    save_file(weights, weights_file(run))
    if judged is not None:
        write_evaluation(run, judged[0])
    card_file(run).write_text(card.to_json())  # last: a run with a card is a finished one
    run.checkpoint.unlink(missing_ok=True)
    return Retrained(run, card)


def _require_converged(result: FitResult, candidate: Candidate) -> None:
    if result.status == "diverged":
        raise StudyError(
            f"the loss became infinite or NaN in epoch {len(result.curve) + 1}, "
            f"at a peak learning rate of {candidate.train.peak_lr:g}",
            hint="retrain another trial (nas list shows them), or try another --seed",
        )


def _official_test(
    result: FitResult, dataset: Dataset, trained_on_it: bool, device: torch.device, tta: str
) -> tuple[Evaluation, float] | None:
    """With test-time augmentation, and the accuracy without; the only place where the test set is opened."""
    if dataset.test is None or trained_on_it:
        return None
    data = place(dataset.test, dataset.mean, dataset.std, device)
    augmented = judge(result.model, data, dataset.test, tta)
    return augmented, augmented.accuracy if tta == "none" else judge(result.model, data, dataset.test, "none").accuracy


# ---------------------------------------------------------------------------------------------------------- the data


def study_data(settings: StudySettings, folder: str | None, decoding: DecodingProgress) -> Dataset:
    """The study's data set, from `folder` if it has moved. Raises DataError where it is not the one that was searched with."""
    config = settings.data if folder is None else settings.data.moved(folder)
    dataset = load_dataset(config, decoding)
    if dataset.fingerprint != settings.data_fingerprint:
        raise DataError(
            f"the images or labels of {config.folder or config.dataset} are not those that the study was searched with",
            hint="name the folder that holds them with --data FOLDER, or search anew under another name",
        )
    return dataset


def labelled_images(dataset: Dataset, include_test: bool) -> ImageSet | JoinedSet:
    """Everything that may train: the training and validation images, with `include_test` also the official test set."""
    parts = [dataset.train] + ([dataset.validation] if dataset.validation else [])
    if include_test:
        if dataset.test is None:
            raise DataError(f"--include-test-labels: data set {dataset.name} has no labelled test images")
        parts.append(dataset.test)
    if len(parts) == 1:
        return parts[0]
    return JoinedSet(tuple(parts))


def unmirrored_candidate(candidate: Candidate) -> Candidate:
    """The same without flips: a preset's recipe is for photographs, and a mirrored digit is another digit."""
    augment = candidate.train.augment.model_copy(update={"flip": "none", "vertical_flip": 0.0})
    return candidate.model_copy(update={"train": candidate.train.model_copy(update={"augment": augment})})


def run_name(subject: Subject, epochs: int, request: RetrainRequest) -> str:
    name = f"{subject.slug}-{epochs}-epochs-seed-{request.seed}"
    if request.train_subset is not None:
        name += f"-subset-{request.train_subset}"
    return name + ("-with-test-labels" if request.include_test_labels else "")
