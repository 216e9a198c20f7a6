"""One schema a command: names, types, defaults, help and completion of its options, once.

A spec is also the request that the engine receives. `nas.cli.options` makes the options of a command from it, and
`nas.api.study` the signature of a function; both leave out fields without an `option`. Imports nothing heavy: `nas --help` must
be quick.
"""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nas.paths import StudyPaths
from nas.specs.options import (
    argument,
    option,
    parse_count,
    parse_duration,
    parse_flop,
    parse_seeds,
    parse_timeout,
    parse_validation,
)

if TYPE_CHECKING:
    from nas.data.splits import DataSelection
    from nas.jobs.placement import Placement

Criterion = Literal["clean", "shifted"]
HOLD_OUT = 0.1  # share of the training images that chooses among several networks, unless told otherwise

# -------------------------------------------------------------------------------------------------- what several commands share


@dataclass(frozen=True, kw_only=True)
class DeviceFields:
    device: str = option("auto", "auto, cuda, cuda:1, mps or cpu.", complete="device", remembered=False)
    threads: int | None = option(
        None, "CPU threads of each worker, and of this command. [default: the cores, shared out]", min=1, remembered=False
    )


@dataclass(frozen=True, kw_only=True)
class ImageFields(DeviceFields):
    data_folder: str | None = option(
        None,
        "Where the data lies: for `folder`, a folder or a file of images; for the others, the folder of the download.",
        name="data",
        path=True,
    )
    train_subset: int | None = option(None, "Train on so many images only, stratified.", min=1)


@dataclass(frozen=True, kw_only=True)
class RecipeFields(ImageFields):
    """Of what is trained in a study after its search."""

    recipe: str = option(
        "searched",
        "searched, auto, fast, long, robust, or a YAML file: how it is trained. auto goes by the length.",
        complete="recipe",
    )
    labels: str | None = option(None, "The study's table of labels, if it has moved without the folder of the images.", path=True)


# ---------------------------------------------------------------------------------------------------------------- the commands


@dataclass(frozen=True)
class SearchSpec(ImageFields):
    """`nas search`; None takes what the study began with, or the default of a new one."""

    space: str | None = option(None, "A shipped space or a YAML file. [default: resnet]", complete="space", positional=True)
    dataset: str | None = option(
        None, "digits, cifar10, cifar100, fashion-mnist, svhn or folder. [default: cifar10]", complete="dataset", positional=True
    )
    study: str | None = option(None, "Its name, a folder under studies/. [default: SPACE-DATASET]")
    trials: int = option(100, "Networks to train, over all runs of the study.")
    timeout: float | None = option(None, "Suspend after this time, such as 90s, 15m or 1h30m.", parse=parse_duration)
    flop: float | None = option(
        None,
        "Train for so much in all, such as 2PFLOP: 6 × MACs × images seen, over all runs of the study, finalists included.",
        name="compute",
        parse=parse_flop,
    )
    finalists: int | None = option(
        None, "Train the best so many again at the end, longer; 0 is none. [default: for a fifth of the cost]", remembered=False
    )
    finalist_epochs: int | None = option(None, "Of each of these trainings. [default: 1.5 times --epochs]", remembered=False)
    finalist_seeds: int | None = option(None, "Trainings of each. [default: 2]", remembered=False)
    seed: int | None = option(
        None, "Of the split, the draws and the trainings; given, one worker on the CPU. [default: 0]", min=0
    )
    validation: float | None = option(
        None,
        "Training images that choose: how many, or a share. [default: 0.1, at most as many as --train-subset]",
        metavar="N",
        parse=parse_validation,
    )
    epochs: int | None = option(None, "Epochs of each training. [default: the space's]")
    max_params: int | str | None = option(None, "The budget, such as 5M or 300k. [default: the space's]")
    labels: str | None = option(None, "A CSV or Parquet file with the label of each image under --data.", path=True)
    image_column: str | None = option(None, "Its paths of images, within --data; or a Parquet file's images. [default: image]")
    label_column: str | None = option(None, "Its labels. [default: label]")
    group_column: str | None = option(None, "Its groups, such as patients: none is on both sides of the split.")
    image_size: int | None = option(
        None, "Resize `folder`'s images. [default: the first one's shorter side]", alias="--size", min=8
    )
    resize: str | None = option(None, "To a square: squash, crop or pad. [default: squash]", complete="resize")
    channels: str | None = option(None, "grey or rgb. [default: the first image's]", complete="channels")
    skip_bad_images: bool = option(False, "Leave out what cannot be read, has no label or no file.")
    warm_start: str | None = option(
        None,
        "Begin a new study with `presets`, `study:NAME`, or one network that fits: `preset:NAME`, STUDY/12, STUDY/best, or a "
        "candidate.json.",
        complete="start",
    )
    sampler: str | None = option(
        None, "tpe, random, gp, qmc, cmaes or evolution. [default: the space's, else tpe]", complete="sampler"
    )
    pruner: str | None = option(
        None, "asha, hyperband, median, percentile, patient or none. [default: the space's, else asha]", complete="pruner"
    )
    metric: str | None = option(
        None,
        "What judges networks: accuracy, balanced_accuracy or macro_f1. [default: the space's, else accuracy]",
        complete="metric",
    )
    class_balance: str | None = option(
        None, "For classes of few images: none, loss or sampling. [default: the space's, else none]", complete="balance"
    )
    gpus: int | None = option(None, "GPUs to use, one worker each; 0 is the CPU. [default: all visible]", remembered=False)
    workers_per_gpu: int | None = option(None, "Several on each GPU, which pays for small networks.", remembered=False)
    workers: int | None = option(
        None,
        "On the CPU: so many, the cores shared out. [default: 1 with --seed or in a short search, else as many as are fastest]",
        remembered=False,
    )
    ray: str | None = option(
        None, "Workers on a Ray cluster: host:port, `auto` for a running one, or `local`.", metavar="ADDRESS", remembered=False
    )
    gpus_per_worker: float | None = option(None, "On Ray: a fraction shares a GPU. [default: 1]", min=0, remembered=False)
    cpus_per_worker: float | None = option(None, "On Ray: cores of each worker. [default: 1]", min=0.1, remembered=False)
    storage: str | None = option(None, "postgresql://user@host/database. [default: SQLite in the study's folder]", metavar="URL")

    @property
    def new_dataset(self) -> str:
        """What a study that begins with this is of."""
        return self.dataset or ("folder" if self.labels or os.path.isfile(self.data_folder or "") else "cifar10")

    @property
    def placement(self) -> "Placement":
        from nas.jobs.placement import Placement

        return Placement(self.device, self.gpus, self.workers_per_gpu, self.workers, self.threads)

    @property
    def final_round(self) -> tuple[int | None, int | None, int | None]:
        """Finalists, their epochs, their seeds."""
        return self.finalists, self.finalist_epochs, self.finalist_seeds


@dataclass(frozen=True)
class RetrainSpec(RecipeFields):
    """One training of `nas retrain`."""

    paths: StudyPaths
    which: str = argument("best", "`best`, `top:5`, numbers or preset:NAME, one or several. [default: best]", complete="subject")
    epochs: int | None = option(None, "Epochs. [default: the recipe's, or four times the search's]")
    seconds: float | None = option(
        None,
        "As many epochs as take so long, such as 8m, for each training, by timing some steps.",
        name="time",
        parse=parse_duration,
    )
    """In place of epochs, with the evaluation at the end."""
    flop: float | None = option(
        None,
        "As many epochs as take so much, such as 0.5PFLOP, for each training: 6 × MACs × images seen.",
        name="compute",
        parse=parse_flop,
    )
    seed: int = option(0, "Another seed trains another network.", min=0)
    hold_out: float = option(0.0, "Share of the images that judges instead.", min=0, max=0.5)
    include_test_labels: bool = option(False, "Train on the official test set too; no test accuracy is claimed then.")
    gpus: int | None = option(
        None, "One training: so many together, processes with --device cpu. Several: one each. 0 is the CPU."
    )
    compiled: bool | None = option(
        None, "By torch.compile, which takes a while first. [default: on CUDA, one GPU]", name="compile"
    )

    @property
    def selection(self) -> "DataSelection":
        from nas.data.splits import DataSelection

        return DataSelection(self.include_test_labels, self.train_subset, self.hold_out)


@dataclass(frozen=True)
class SeveralSpec:
    """`nas retrain` of several networks, or by several seeds."""

    base: RetrainSpec
    subjects: tuple[str, ...]
    seeds: tuple[int, ...]
    placement: "Placement"
    by: Criterion = "clean"

    @property
    def threads(self) -> int | None:
        return self.base.threads

    def each(self) -> list[RetrainSpec]:
        """All networks by the first seed before any by the second."""
        return [dataclasses.replace(self.base, which=which, seed=seed) for seed in self.seeds for which in self.subjects]


@dataclass(frozen=True)
class AblateSpec(RecipeFields):
    paths: StudyPaths
    which: str = argument("best", "The base: `best`, a trial's number or preset:NAME.", complete="subject")
    factors: tuple[str, ...] = option(
        (),
        "A field and its values: lr=0.05,0.1  kernel=3,5  blocks=2-2-2,3-3-3 (a value a stage)  "
        "policy=none,randaugment  blocks+channels=2-2-2+64-128-256,3-3-3+48-96-192 (together). Again for another one.",
        name="vary",
    )
    fixed: tuple[str, ...] = option((), "A field and its value in all variants: adam_lr=0.002. Again for another.", name="set")
    grid: bool = option(False, "Every combination instead of one factor at a time.")
    seeds: tuple[int, ...] = option(
        (0, 1, 2), "Trainings of each variant: how many, or a list such as 0,3,4.", parse=parse_seeds, text="3"
    )
    epochs: int | None = option(None, "Epochs. [default: the recipe's, or the search's]")
    hold_out: float = option(HOLD_OUT, "Share of the images that judges.", min=0, max=0.5)
    name: str | None = option(
        None, "Of the ablation, a folder under the study's. [default: of the network, the factors and the epochs]"
    )
    gpus: int | None = option(None, "So many, a training each. [default: all; 0 is the CPU]")
    workers: int | None = option(None, "On the CPU: so many trainings at a time. [default: 1]")

    @property
    def base(self) -> RetrainSpec:
        """Which network, by which recipe, how long, on which images; it is not compiled."""
        shared = {field.name: getattr(self, field.name) for field in dataclasses.fields(RecipeFields)}
        return RetrainSpec(self.paths, self.which, epochs=self.epochs, hold_out=self.hold_out, compiled=False, **shared)

    @property
    def placement(self) -> "Placement":
        from nas.jobs.placement import Placement

        return Placement(self.device, gpus=self.gpus, workers=self.workers, threads=self.threads)


@dataclass(frozen=True)
class BaselineSpec(RecipeFields):
    paths: StudyPaths
    networks: tuple[str, ...] = argument((), "FILE.py:CLASS or torchvision:NAME, one or several.")
    like: str = option("best", "The network whose recipe it is: `best`, a trial's number or preset:NAME.", complete="subject")
    epochs: int | None = option(None, "Epochs. [default: the recipe's, or four times the search's]")
    seeds: tuple[int, ...] = option((0,), "Trainings of each: how many, or a list such as 0,3,4.", parse=parse_seeds, text="1")
    hold_out: float = option(0.0, "Share of the training images that judges instead, as in nas retrain.", min=0, max=0.5)
    timeout: float = option(
        60.0, "For the code of a network to build it and train it a step: 90s, 5m.", parse=parse_timeout, text="60s"
    )

    @property
    def retraining(self) -> RetrainSpec:
        """Of the network that it is trained like."""
        shared = {field.name: getattr(self, field.name) for field in dataclasses.fields(RecipeFields)}
        return RetrainSpec(self.paths, self.like, epochs=self.epochs, hold_out=self.hold_out, compiled=False, **shared)

    @property
    def selection(self) -> "DataSelection":
        return self.retraining.selection


RUN_HELP = (
    "A retrained network: its name, as nas runs shows it; its folder, wherever that lies; `best`, a trial's number or "
    "preset:NAME for its latest run; or `chosen`: what nas retrain chose among several, else the latest run of `best`, else "
    "the latest. [default: chosen]"
)


@dataclass(frozen=True)
class SubmitSpec(DeviceFields):
    paths: StudyPaths | None  # none where `run` is a folder outside any study
    test: Path | None = argument(
        None, "A pickle, a .npy, .npz or .parquet, or a folder. [default: the one given to this study before]"
    )
    run: str | None = option(None, RUN_HELP)
    output: Path | None = option(None, "The CSV. [default: in the study's folder, or here]")
    tta: str | None = option(
        None,
        "Average over flip, or flip_shift; or none. [default: flip, if the network was trained with flips]",
        complete="averaging",
    )
    adapt_norm: bool = option(False, "Take BatchNorm's statistics from the test set: for one that is shifted.")
    names: bool = option(False, "Write the classes' names instead of their indices.")
    id_column: str | None = option(None, "[default: ID]")
    label_column: str | None = option(None, "[default: Labels]")
    like: Path | None = option(None, "A sample submission: its columns, its IDs in their order, its kind of labels.")
    probabilities: Path | None = option(None, "Also write every class's probability into this CSV.")


@dataclass(frozen=True)
class PredictSpec(DeviceFields):
    paths: StudyPaths | None  # none where `run` is a folder outside any study
    images: tuple[Path, ...] = argument(dataclasses.MISSING, "Image files, or folders of them.")
    run: str | None = option(None, RUN_HELP)
    top: int = option(3, "Classes to name.")
    output: Path | None = option(None, "Also write them into this CSV, a line an image.")


@dataclass(frozen=True)
class ExportSpec:
    paths: StudyPaths | None  # none where `run` is a folder outside any study
    run: str | None = argument(None, RUN_HELP)
    format: str = option("weights", "weights, onnx or torch.", complete="format")
    output: Path | None = option(None, "File or folder. [default: under exported/ in the study's folder, or here]")
    tta: str | None = option(None, "none, flip or flip_shift. [default: as nas submit]", complete="averaging")
    bf16: bool = option(False, "weights: also in bfloat16, half as large.")


@dataclass(frozen=True)
class CheckSpec:
    """None takes the study's images and limits, or, of a network that belongs to none, CIFAR-10's and 5 M parameters."""

    network: str = argument(
        "best", "`best`, a trial's number, preset:NAME, FILE.py:CLASS or torchvision:NAME.", complete="subject"
    )
    study: str | None = option(None, "The study's name, a folder under studies/. [default: the one used last]", complete="study")
    classes: int | None = option(None, "Of the images. [default: the study's, or 10]", min=2)
    size: int | None = option(None, "Height and width of the images. [default: the study's, or 32]", min=8)
    channels: int | None = option(None, "Of the images. [default: the study's, or 3]", min=1)
    max_params: int | None = option(
        None, "At most so many parameters, such as 1M. [default: the study's, or 5M]", parse=parse_count
    )
    max_macs: int | None = option(None, "At most so many multiply-adds, such as 30M. [default: the study's]", parse=parse_count)
    timeout: float = option(60.0, "For the code of a file or of torchvision: 90s, 5m.", parse=parse_timeout, text="60s")
