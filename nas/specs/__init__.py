"""One schema for each command: names, types, defaults, help and completion of its options.

A spec is also the request that the engine receives. `nas.cli.options` makes the options of a command from it, and
`nas.api.study` the signature of a function; both leave out fields without an `option`. Nothing heavy is imported here, because
`nas --help` must be quick.
"""

import dataclasses
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
    parse_names,
    parse_seeds,
    parse_timeout,
    parse_validation,
)

if TYPE_CHECKING:
    from nas.data.splits import DataSelection
    from nas.jobs.placement import Placement

Criterion = Literal["clean", "shifted"]
HOLD_OUT = 0.1  # default share of held-out training images, which choose among several networks

# ------------------------------------------------------------------------------------------------ options of several commands


@dataclass(frozen=True, kw_only=True)
class DeviceFields:
    device: str = option("auto", "auto, cuda, cuda:1, mps or cpu.", complete="device", remembered=False)
    threads: int | None = option(
        None, "CPU threads of each worker and of this command. [default: at most all cores, shared]", min=1, remembered=False
    )


@dataclass(frozen=True, kw_only=True)
class ImageFields(DeviceFields):
    data_folder: str | None = option(None, "Your images (folder or file), or the folder for downloads.", name="data", path=True)
    train_subset: int | None = option(None, "Train on this many images, stratified.", min=1)


@dataclass(frozen=True, kw_only=True)
class TableFields:
    """How a data set's tables, and files with columns, are read."""

    labels: str | None = option(None, "CSV or Parquet file with the labels of images in --data.", path=True)
    image_column: str | None = option(None, "Column with paths of images within --data, or with the images. [default: image]")
    label_column: str | None = option(None, "Column with the labels. [default: label]")
    label_columns: tuple[str, ...] | None = option(
        None, "One column for each class, with 1 for its images: healthy,rust,scab.", parse=parse_names, metavar="NAMES"
    )
    no_header: bool = option(False, "The table has no line of names; its columns are called 1, 2, …")
    group_column: str | None = option(None, "Column with groups, such as patients; the split keeps each group together.")


@dataclass(frozen=True, kw_only=True)
class RecipeFields(ImageFields):
    """Options of trainings after a search."""

    recipe: str = option(
        "searched", "searched, auto (fast or long), fast, long, record, robust, or a YAML file.", complete="recipe"
    )
    labels: str | None = option(None, "The study's table of labels, if it has moved.", path=True)


# ---------------------------------------------------------------------------------------------------------------- the commands


@dataclass(frozen=True)
class SearchSpec(TableFields, ImageFields):
    """`nas search`. None: what the study stores, or the default of a new study."""

    space: str | None = option(None, "A shipped space or a YAML file. [default: resnet]", complete="space", positional=True)
    dataset: str | None = option(
        None,
        "A data set such as digits or cifar10, or folder for your images. [default: folder if --data has images, else cifar10]",
        complete="dataset",
        positional=True,
    )
    study: str | None = option(None, "Name of the study. [default: SPACE-DATASET]")
    trials: int = option(100, "Networks to train, over all runs of the study.")
    timeout: float | None = option(
        None, "Suspend after this time, such as 90s, 15m or 1h30m.", parse=parse_duration, metavar="TIME"
    )
    flop: float | None = option(
        None,
        "Train for this much compute in total, such as 2PFLOP; training costs 6 × MACs × images.",
        name="compute",
        parse=parse_flop,
        metavar="FLOP",
        remembered=False,
    )
    trial_compute: float | None = option(
        None,
        "Train each network for this compute, such as 10TFLOP, instead of on the same images. [default: the space's]",
        parse=parse_flop,
        metavar="FLOP",
    )
    final_compute: float | None = option(
        None,
        "With --trial-compute: rank for a final training of this compute. [default: the space's]",
        parse=parse_flop,
        metavar="FLOP",
    )
    finalists: int | None = option(
        None, "Train the best N again, longer. [default: as many as a fifth of the search's cost allows]", remembered=False
    )
    finalist_epochs: int | None = option(
        None, "Epochs of each finalist. [default: 1.5 times --epochs; --epochs in a short search]", remembered=False
    )
    finalist_seeds: int | None = option(
        None, "Number of seeds for each finalist. [default: 2; 1 in a very short search]", remembered=False
    )
    seed: int | None = option(None, "Random seed; on the CPU also sets one worker. [default: 0]", min=0)
    validation: float | None = option(
        None, "Validation images: a number or a share. [default: 0.1]", metavar="N", parse=parse_validation
    )
    epochs: int | None = option(None, "Epochs of each training. [default: the space's]")
    max_params: int | str | None = option(None, "Parameter limit, such as 5M or 300k. [default: the space's]", metavar="N")
    image_size: int | None = option(
        None,
        "Resize the images of a folder to this size. [default: the shorter side of the first]",
        alias="--size",
        min=8,
        max=1024,
    )
    resize: str | None = option(None, "How images become square: squash, crop or pad. [default: squash]", complete="resize")
    channels: str | None = option(None, "grey or rgb. [default: as the first image]", complete="channels")
    skip_bad_images: bool = option(False, "Skip images that cannot be read, or that have no label or no file.")
    group_duplicates: bool = option(False, "Keep images that are alike, also mirrored, on one side of the split.")
    warm_start: str | None = option(
        None,
        "Start a new study from `presets`, `study:NAME`, `optuna:URL/NAME`, or one network: `preset:NAME`, STUDY/12, "
        "STUDY/best or a candidate.json.",
        complete="start",
    )
    sampler: str | None = option(None, "tpe, random, gp, qmc, cmaes, evolution. [default: space's, or tpe]", complete="sampler")
    pruner: str | None = option(
        None, "asha, hyperband, median, percentile, patient, none. [default: the space's, or asha]", complete="pruner"
    )
    metric: str | None = option(
        None, "What to maximise: accuracy, balanced_accuracy or macro_f1. [default: the space's, or accuracy]", complete="metric"
    )
    class_balance: str | None = option(
        None, "Balance classes with few images: none, loss or sampling. [default: the space's, or none]", complete="balance"
    )
    gpus: int | None = option(None, "Number of GPUs, one worker each; 0: the CPU. [default: all]", remembered=False)
    workers_per_gpu: int | None = option(None, "Workers on each GPU; several are faster for small networks.", remembered=False)
    workers: int | None = option(None, "Number of workers on the CPU. [default: chosen for speed]", remembered=False)
    ray: str | None = option(
        None, "Train on a Ray cluster: host:port, `auto` for a running one, or `local`.", metavar="ADDRESS", remembered=False
    )
    gpus_per_worker: float | None = option(
        None, "Ray: GPUs per worker; with a fraction several workers share a GPU. [default: 1]", min=0, remembered=False
    )
    cpus_per_worker: float | None = option(None, "Ray: cores per worker. [default: 1]", min=0.1, remembered=False)
    storage: str | None = option(None, "postgresql://user@host/database. [default: SQLite in the study's folder]", metavar="URL")

    @property
    def new_dataset(self) -> str:
        """The data set of a new study."""
        from nas.data.datasets import dataset_at

        return self.dataset or ("folder" if self.labels else dataset_at(self.data_folder))

    @property
    def placement(self) -> "Placement":
        from nas.jobs.placement import Placement

        return Placement(self.device, self.gpus, self.workers_per_gpu, self.workers, self.threads)

    @property
    def final_round(self) -> tuple[int | None, int | None, int | None]:
        """Number of finalists, their epochs and their seeds."""
        return self.finalists, self.finalist_epochs, self.finalist_seeds


@dataclass(frozen=True)
class RetrainSpec(RecipeFields):
    """One training of `nas retrain`."""

    paths: StudyPaths
    which: str = argument(
        "best", "`best`, `top:5`, trial numbers or preset:NAME, one or several. [default: best]", complete="subject"
    )
    epochs: int | None = option(None, "Epochs. [default: the recipe's, or four times the search's]")
    seconds: float | None = option(
        None, "Instead of --epochs: train for this time, such as 8m.", name="time", parse=parse_duration, metavar="TIME"
    )
    flop: float | None = option(
        None,
        "Instead of --epochs: train for this compute, such as 0.5PFLOP; training costs 6 × MACs × images.",
        name="compute",
        parse=parse_flop,
        metavar="FLOP",
    )
    seed: int = option(0, "Random seed.", min=0)
    hold_out: float = option(0.0, "Share of the training images to hold out.", min=0, max=0.5)
    include_test_labels: bool = option(False, "Also train on the official test set; no test accuracy then.")
    gpus: int | None = option(
        None, "One network: GPUs that train it together [default: 1]. Several: GPUs, one network on each [default: all]. 0: CPU."
    )
    compiled: bool | None = option(None, "Use torch.compile. [default: on CUDA with one GPU]", name="compile")

    @property
    def selection(self) -> "DataSelection":
        from nas.data.splits import DataSelection

        return DataSelection(self.include_test_labels, self.train_subset, self.hold_out)

    def placement(self, workers: int | None) -> "Placement":
        """Of several networks, each of which one device trains."""
        from nas.jobs.placement import Placement

        return Placement(self.device, gpus=self.gpus, workers=workers, threads=self.threads)


def _retraining(spec: "AblateSpec | BaselineSpec", which: str, gpus: int | None = None) -> RetrainSpec:
    """The training of the network of the study that others are compared with; not compiled."""
    shared = {field.name: getattr(spec, field.name) for field in dataclasses.fields(RecipeFields)}
    return RetrainSpec(spec.paths, which, epochs=spec.epochs, hold_out=spec.hold_out, gpus=gpus, compiled=False, **shared)


@dataclass(frozen=True)
class SeveralSpec:
    """`nas retrain` of several networks or with several seeds."""

    base: RetrainSpec
    subjects: tuple[str, ...]
    seeds: tuple[int, ...]
    workers: int | None = None
    by: Criterion = "clean"

    @property
    def threads(self) -> int | None:
        return self.base.threads

    def each(self) -> list[RetrainSpec]:
        """All networks with the first seed, then all with the second."""
        return [dataclasses.replace(self.base, which=which, seed=seed) for seed in self.seeds for which in self.subjects]


@dataclass(frozen=True)
class AblateSpec(RecipeFields):
    paths: StudyPaths
    which: str = argument("best", "The base network: `best`, a trial number or preset:NAME.", complete="subject")
    factors: tuple[str, ...] = option(
        (),
        "A field and its values: lr=0.05,0.1, or for each stage: blocks=2-2-2,3-3-3. May be repeated. Fields that "
        "change together: blocks+channels=2-2-2+64-128-256,3-3-3+48-96-192.",
        name="vary",
        metavar="FIELD=VALUES",
    )
    fixed: tuple[str, ...] = option(
        (), "A value for all variants: adam_lr=0.002. May be repeated.", name="set", metavar="FIELD=VALUE"
    )
    grid: bool = option(False, "Train every combination, not one factor at a time.")
    seeds: tuple[int, ...] = option(
        (0, 1, 2), "Number of seeds for each variant, or a list: 0,3,4.", parse=parse_seeds, metavar="N", text="3"
    )
    epochs: int | None = option(None, "Epochs. [default: the recipe's, or the search's]")
    hold_out: float = option(HOLD_OUT, "Share of the training images to hold out.", min=0, max=0.5)
    name: str | None = option(None, "Name of the ablation. [default: from what varies]")
    gpus: int | None = option(None, "Number of GPUs, one training on each; 0: the CPU. [default: all]")
    workers: int | None = option(None, "Networks to train at the same time on the CPU. [default: 1]")

    @property
    def base(self) -> RetrainSpec:
        return _retraining(self, self.which, self.gpus)


@dataclass(frozen=True)
class BaselineSpec(RecipeFields):
    paths: StudyPaths
    networks: tuple[str, ...] = argument((), "FILE.py:CLASS, torchvision:NAME or timm:NAME, one or several.")
    like: str = option("best", "Use the recipe of this network: `best`, a trial number or preset:NAME.", complete="subject")
    epochs: int | None = option(None, "Epochs. [default: the recipe's, or four times the search's]")
    seeds: tuple[int, ...] = option(
        (0,), "Number of seeds for each network, or a list: 0,3,4.", parse=parse_seeds, metavar="N", text="1"
    )
    hold_out: float = option(0.0, "Share of the training images to hold out.", min=0, max=0.5)
    timeout: float = option(
        60.0, "Time limit for building a network and one training step: 90s, 5m.", parse=parse_timeout, text="60s", metavar="TIME"
    )

    @property
    def base(self) -> RetrainSpec:
        return _retraining(self, self.like)


RUN_HELP = (
    "A run: its name in `nas runs`, or its folder. `best`, a trial number or preset:NAME means the latest run of that network; "
    "`chosen`: the run that nas retrain chose, else the latest run of `best`, else the latest run. [default: chosen]"
)


@dataclass(frozen=True)
class SubmitSpec(DeviceFields):
    paths: StudyPaths | None  # None if `run` is a folder outside any study
    test: Path | None = argument(
        None,
        "A pickle, .npy, .npz, .parquet, .tar or .csv file, or a folder. [default: the study's last one, or its test images]",
    )
    run: str | None = option(None, RUN_HELP)
    output: Path | None = option(None, "The CSV file. [default: in the study's folder, or the working folder]")
    tta: str | None = option(
        None,
        "Test-time augmentation: none, flip or flip_shift. [default: flip, if it was trained with flips]",
        complete="averaging",
    )
    adapt_norm: bool = option(False, "For test images that look different: take BatchNorm statistics from them.")
    names: bool = option(False, "Write class names, not indices.")
    id_column: str | None = option(None, "Name of the ID column. [default: ID]")
    label_column: str | None = option(None, "Name of the label column. [default: Labels]")
    like: Path | None = option(None, "A sample submission: use its columns, IDs, order and kind of labels.")
    probabilities: Path | None = option(None, "Also write the probability of every class to this CSV file.")


@dataclass(frozen=True)
class PredictSpec(DeviceFields):
    paths: StudyPaths | None  # None if `run` is a folder outside any study
    images: tuple[Path, ...] = argument(dataclasses.MISSING, "Image files, or folders of images.")
    run: str | None = option(None, RUN_HELP)
    top: int = option(3, "Number of classes to show.")
    output: Path | None = option(None, "Also write them to this CSV file, one line for each image.")


@dataclass(frozen=True)
class ExportSpec:
    paths: StudyPaths | None  # None if `run` is a folder outside any study
    run: str | None = argument(None, RUN_HELP)
    format: str = option("weights", "weights, onnx, onnx-int8 or torch.", complete="format")
    output: Path | None = option(None, "File or folder. [default: exported/ in the study's folder, or the working folder]")
    tta: str | None = option(
        None, "Test-time augmentation: none, flip or flip_shift. [default: as nas submit]", complete="averaging"
    )
    bf16: bool = option(False, "With weights: also a bfloat16 file, half as large.")
    keep_float: tuple[str, ...] = option((), "With onnx-int8: a layer that stays in float; may be repeated.", metavar="LAYER")


@dataclass(frozen=True)
class CheckSpec:
    """None: the images and limits of the study or, for a network without a study, CIFAR-10's images and 5 M parameters."""

    network: str = argument(
        "best", "`best`, a trial number, preset:NAME, FILE.py:CLASS, torchvision:NAME or timm:NAME.", complete="subject"
    )
    study: str | None = option(
        None, "Name of the study. [default for `best` and trial numbers: the one used last]", complete="study"
    )
    classes: int | None = option(None, "Number of classes. [default: the study's, or 10]", min=2)
    size: int | None = option(None, "Height and width. [default: the study's, or 32]", min=8)
    channels: int | None = option(None, "Channels. [default: the study's, or 3]", min=1)
    max_params: int | None = option(
        None, "Parameter limit, such as 1M. [default: the study's, or 5M]", parse=parse_count, metavar="N"
    )
    max_macs: int | None = option(None, "MACs limit, such as 30M. [default: the study's]", parse=parse_count, metavar="N")
    timeout: float = option(
        60.0, "Time limit for the code of a file or of a library.", parse=parse_timeout, text="60s", metavar="TIME"
    )


@dataclass(frozen=True)
class AuditSpec(TableFields):
    """`nas doctor --data`"""

    data_folder: str | None = option(None, "Images to audit: a folder or a file, as for nas search.", name="data", path=True)
    test: Path | None = option(None, "With --data: also test images, which need no labels, against the training images.")
