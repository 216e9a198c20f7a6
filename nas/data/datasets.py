"""Data sets by name, each as uint8 arrays with labels. To add one: a function `(DataConfig, Progress) -> Dataset`, an entry
in DATASETS; the conformance test picks it up.

Which images select and which train is decided here too (`Split`), because retraining, searching and reporting must agree on it.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from nas.config import DataConfig, ImageShape
from nas.data.cache import (
    IMAGE_SUFFIXES,
    UNREADABLE,
    Entry,
    ImageFile,
    Progress,
    bad_images_error,
    decode_all,
    entry_key,
    find_or_make,
    image_files,
    reason_of,
    silent,
    write_meta,
)
from nas.errors import DataError, choices_sentence

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, in [0, 255]."""


@dataclass(frozen=True)
class ImageSet:
    images: np.ndarray
    """uint8 (N, H, W, C)"""
    labels: np.ndarray
    """int64 (N,)"""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    name: str
    classes: tuple[str, ...]
    train: ImageSet
    validation: ImageSet | None
    """Images that the data set itself sets aside for choosing; None where a share of `train` must serve."""
    test: ImageSet | None
    mean: tuple[float, ...]
    """Each channel's mean over the training images, in [0, 255]."""
    std: tuple[float, ...]
    skipped: int = 0
    """Unreadable images that were left out."""
    validation_statistics: Statistics | None = None
    """Of `validation`, where it is there."""

    @property
    def shape(self) -> ImageShape:
        _, height, _, channels = self.train.images.shape
        return ImageShape(channels=channels, size=height, classes=len(self.classes))

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the classes, the training labels in their order and the pixel statistics, and of the images
        that choose, where the data set brings its own."""
        digest = hashlib.sha256(repr((self.classes, self.mean, self.std, self.train.images.shape)).encode())
        digest.update(np.ascontiguousarray(self.train.labels).tobytes())
        if self.validation is not None:
            statistics = self.validation_statistics or channel_statistics(self.validation.images)
            digest.update(repr((self.validation.images.shape, statistics)).encode())
            digest.update(np.ascontiguousarray(self.validation.labels).tobytes())
        return digest.hexdigest()[:16]


def load_dataset(config: DataConfig, progress: Progress = silent) -> Dataset:
    """Raises DataError where the data is missing, broken or not what its name says."""
    require_known(config.dataset)
    return DATASETS[config.dataset](config, progress)


def require_known(dataset: str) -> None:
    """Raises DataError, with the choices, for a name that is no data set's."""
    if dataset not in DATASETS:
        hint = f"--dataset folder --data {dataset}" if Path(dataset).is_dir() else None
        raise DataError(f"{dataset!r} is no data set.{choices_sentence(dataset, DATASETS)}", hint=hint)


# ------------------------------------------------------------------------------------------------------- the split


@dataclass(frozen=True)
class Split:
    """Which of the training images train candidates, and which choose among them: disjoint indices, sorted."""

    train: np.ndarray
    """int64 indices into `Dataset.train`"""
    validation: np.ndarray | None
    """int64 indices into `Dataset.train`; None where the data set brings its own validation images."""


def split(dataset: Dataset, config: DataConfig) -> Split:
    """The same for the same labels and `config.seed`, whatever else changes. Raises DataError where a class is too small."""
    labels = dataset.train.labels
    validation = None
    train = np.arange(len(labels))
    if dataset.validation is None:
        for label in np.flatnonzero(np.bincount(labels) == 1):
            raise DataError(
                f"class {dataset.classes[label]!r} has a single image; each class needs at least two, one to train and one to "
                "choose",
                hint="add images to it, or leave the class out",
            )
        validation = stratified(labels, config.validation, config.seed)
        train = np.setdiff1d(train, validation)
    if config.subset is not None:
        if not len(dataset.classes) <= config.subset <= len(train):
            raise DataError(
                f"--train-subset takes at least one image of each of the {len(dataset.classes)} classes and at most the "
                f"{len(train)} that are there to train on, not {config.subset}"
            )
        share = config.subset / len(train)
        train = train[stratified(labels[train], share, config.seed + 1, total=config.subset)]
    return Split(train, validation)


def stratified(labels: np.ndarray, share: float, seed: int, total: int | None = None) -> np.ndarray:
    """Sorted indices of `share` of each class, at least one of each.

    Every class gives floor(share × its size); what is missing to the total goes to the largest remainders. With `total`, exactly
    so many; without, about share × N, and of each class at least one image is left, so that it must have two.
    """
    counts = np.bincount(labels)
    present = np.flatnonzero(counts)
    most = counts - 1 if total is None else counts
    assert (most[present] >= 1).all()
    assert total is None or len(present) <= total <= len(labels)
    wanted = round(share * len(labels)) if total is None else total
    exact = counts * share
    take = np.where(counts > 0, np.clip(np.floor(exact), 1, most), 0).astype(int)
    for c in present[np.argsort(-(exact - np.floor(exact))[present], kind="stable")]:
        if take.sum() >= wanted:
            break
        take[c] = min(take[c] + 1, most[c])
    while total is not None and take.sum() > total:  # small classes were rounded up to one image
        take[np.argmax(np.where(take > 1, take - exact, -np.inf))] -= 1
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    chosen = [order[labels[order] == c][: take[c]] for c in present]
    return np.sort(np.concatenate(chosen))


# ---------------------------------------------------------------------------------------------------- the data sets


def labelled_images(dataset: Dataset, include_test: bool) -> ImageSet:
    """Everything that may train: the training and validation images, with `include_test` also the official test set."""
    parts = [dataset.train] + ([dataset.validation] if dataset.validation else [])
    if include_test:
        if dataset.test is None:
            raise DataError(f"--include-test-labels: data set {dataset.name} has no labelled test images")
        parts.append(dataset.test)
    if len(parts) == 1:
        return parts[0]
    return ImageSet(np.concatenate([p.images for p in parts]), np.concatenate([p.labels for p in parts]))


def channel_statistics(images: np.ndarray) -> Statistics:
    """Of uint8 (N, H, W, C); a constant channel has deviation 1."""
    channels = images.shape[3]
    total, squares, count = np.zeros(channels), np.zeros(channels), 0
    for start in range(0, len(images), 4096):
        part = images[start : start + 4096].reshape(-1, channels).astype(np.float64)
        total += part.sum(0)
        squares += (part**2).sum(0)
        count += len(part)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    std[std < 1e-6] = 1.0
    return tuple(map(float, mean)), tuple(map(float, std))


def _refuse_image_size(config: DataConfig, size: int) -> None:
    if config.image_size not in (None, size):
        raise DataError(
            f"the images of {config.dataset} are {size}×{size}; --image-size {config.image_size} works with --dataset folder only"
        )


def load_digits(config: DataConfig, progress: Progress) -> Dataset:
    """scikit-learn's 1,797 handwritten digits of 8×8 (UCI Optical Recognition of Handwritten Digits). Every fifth of each
    class, drawn once and for all, is the test split; the data set itself has none."""
    _refuse_image_size(config, 8)

    def make(folder: Path) -> None:
        from sklearn.datasets import load_digits as load  # it takes a second to import

        bunch = load()
        images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
        labels = bunch.target.astype(np.int64)
        test = stratified(labels, 0.2, seed=0)
        train = np.setdiff1d(np.arange(len(labels)), test)
        for part, chosen in (("train", train), ("test", test)):
            np.save(folder / f"{part}-images.npy", images[chosen])
            np.save(folder / f"{part}-labels.npy", labels[chosen])
        mean, std = channel_statistics(images[train])
        write_meta(folder, {"classes": [str(digit) for digit in range(10)], "mean": mean, "std": std})

    return _from_entry("digits", find_or_make("digits", entry_key(["digits"]), make))


def _load_cifar(config: DataConfig, progress: Progress, kind: str) -> Dataset:
    _refuse_image_size(config, 32)
    root = Path(config.folder or "data")

    def make(folder: Path) -> None:
        meta = {}
        for part in ("train", "test"):
            source = _torchvision_cifar(kind, root, train=part == "train")
            np.save(folder / f"{part}-images.npy", source.data)
            np.save(folder / f"{part}-labels.npy", np.asarray(source.targets, np.int64))
            if part == "train":
                mean, std = channel_statistics(source.data)
                meta = {"classes": source.classes, "mean": mean, "std": std}
        write_meta(folder, meta)

    return _from_entry(kind, find_or_make(kind, entry_key([kind]), make))


def _torchvision_cifar(kind: str, root: Path, train: bool):  # type: ignore[no-untyped-def]
    from torchvision import datasets

    source = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[kind]
    try:
        return source(root, train=train)
    except RuntimeError:
        pass  # not there, or its checksum is wrong
    try:
        root.mkdir(parents=True, exist_ok=True)
        return source(root, train=train, download=True)
    except (OSError, RuntimeError) as error:  # URLError and HTTPError are OSErrors
        raise DataError(
            f"{kind} is not under {root.absolute()}, and its download failed: {error}",
            hint=f"get {source.filename} from {source.url} on a machine with a network, unpack it so that "
            f"{root / source.base_folder} exists, and run the command again; --dataset digits needs no download",
        ) from None


def load_cifar10(config: DataConfig, progress: Progress) -> Dataset:
    """CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 colour images of 32×32 in 10 classes, by torchvision."""
    return _load_cifar(config, progress, "cifar10")


def load_cifar100(config: DataConfig, progress: Progress) -> Dataset:
    """CIFAR-100 (Krizhevsky 2009): as CIFAR-10, in 100 classes."""
    return _load_cifar(config, progress, "cifar100")


def load_folder(config: DataConfig, progress: Progress) -> Dataset:
    """Images in a folder for each class: FOLDER/train/<class>/* with optional FOLDER/val and FOLDER/test, or FOLDER/<class>/*.

    All are brought to squares of `image_size`, by default the shorter side of the first readable image, and to that image's
    number of channels (1 for greyscale, 3 for anything else).
    """
    if config.folder is None:
        raise DataError("--dataset folder needs the folder", hint="nas search --dataset folder --data FOLDER")
    root = Path(config.folder)
    if not root.is_dir():
        raise DataError(
            f"there is no folder {root.absolute()}",
            hint="--data FOLDER takes FOLDER/train/<class>/*.png or FOLDER/<class>/*.png; --dataset digits needs no folder",
        )
    parts = {"train": root}
    others = {part: root / part for part in ("val", "test") if (root / part).is_dir()}
    if (root / "train").is_dir():
        parts = {"train": root / "train", **others}
    elif others:
        raise DataError(
            f"{root} has the folder {' and '.join(others)}, but no folder train beside it",
            hint="--data FOLDER takes FOLDER/train/<class>/*.png or FOLDER/<class>/*.png",
        )
    classes = _class_folders(parts["train"])
    files = {part: _class_files(folder, classes) for part, folder in parts.items()}
    size, channels = _first_image([file.path for file, _ in files["train"]], config.image_size)
    facts: list[object] = [root.absolute(), size, channels, config.skip_bad_images]
    for part, listed in files.items():
        facts += [part, *((*file, label) for file, label in listed)]

    def make(folder: Path) -> None:
        skipped = 0
        meta: dict = {"classes": classes}
        for part, listed in files.items():
            skipped += _write_part(folder, part, listed, (size, size, channels), config.skip_bad_images, progress)
        statistics = {
            part: channel_statistics(np.load(folder / f"{part}-images.npy", mmap_mode="r")) for part in files.keys() - {"test"}
        }
        mean, std = statistics["train"]
        write_meta(folder, meta | {"mean": mean, "std": std, "val": statistics.get("val"), "skipped": skipped})

    return _from_entry("folder", find_or_make("folder", entry_key(facts), make))


def _write_part(
    folder: Path,
    part: str,
    listed: list[tuple[ImageFile, int]],
    shape: tuple[int, int, int],
    skip_bad: bool,
    progress: Progress,
) -> int:
    """Decodes one part into `<part>-images.npy` and `<part>-labels.npy`. Returns how many images were left out."""
    paths = [Path(file.path) for file, _ in listed]
    target = folder / f"{part}-images.npy"
    out = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=(len(paths), *shape))
    bad = decode_all(paths, out, progress, f"decoding {part} images")
    if bad and not skip_bad:
        raise bad_images_error([(paths[i], reason) for i, reason in bad], len(paths))
    out.flush()
    keep = np.setdiff1d(np.arange(len(paths)), [i for i, _ in bad])
    labels = np.array([label for _, label in listed], np.int64)[keep]
    if bad:
        np.save(target, np.asarray(out[keep]))
        kept = set(labels.tolist())
        if lost := [path for path, (_, label) in zip(paths, listed, strict=True) if label not in kept]:
            raise DataError(f"no image of class folder {lost[0].parent} can be read", hint="repair them, or remove the folder")
    np.save(folder / f"{part}-labels.npy", labels)
    return len(bad)


def _class_folders(folder: Path) -> list[str]:
    """Their order is that of the labels: by number where all are numbers, so that class 10 is not label 2."""
    names = [p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    classes = sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names)
    if len(classes) < 2:
        raise DataError(
            f"a classifier needs at least two classes, each a folder of images, but the folders in {folder} are: "
            f"{', '.join(classes) or 'none'}",
            hint="--data FOLDER takes FOLDER/train/<class>/*.png or FOLDER/<class>/*.png",
        )
    return classes


def _class_files(folder: Path, classes: list[str]) -> list[tuple[ImageFile, int]]:
    extra = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".") and p.name not in classes)
    if extra:
        raise DataError(f"{folder / extra[0]} is no class of the training images. Choices: {', '.join(classes)}.")
    listed: list[tuple[ImageFile, int]] = []
    for label, name in enumerate(classes):
        before = len(listed)
        if (folder / name).is_dir():
            listed += [(file, label) for file in image_files(str(folder / name))]
        if len(listed) == before:
            raise DataError(
                f"there is no image in {folder / name}; each class of the training images needs some, in files that end in "
                f"{', '.join(IMAGE_SUFFIXES)}",
                hint="add images, or leave the class out",
            )
    return listed


def _first_image(paths: list[str], image_size: int | None) -> tuple[int, int]:
    """(size, channels) for all images, as the first readable one has them."""
    bad: list[tuple[Path, str]] = []
    for path in map(Path, paths):
        try:
            with Image.open(path) as image:
                width, height = image.size
                channels = 1 if image.mode in ("1", "L") else 3
        except UNREADABLE as error:
            bad.append((path, reason_of(error)))
            continue
        if image_size is None and min(width, height) < 8:
            raise DataError(f"images must have at least 8×8 pixels, but {path} has {width}×{height}", hint="--image-size 32")
        return image_size or min(width, height), channels
    raise bad_images_error(bad, len(paths))


def _from_entry(name: str, entry: Entry) -> Dataset:
    meta = entry.meta()

    def part(which: str) -> ImageSet | None:
        if not (entry.folder / f"{which}-labels.npy").is_file():
            return None
        return ImageSet(entry.array(f"{which}-images"), np.asarray(entry.array(f"{which}-labels")))

    train = part("train")
    assert train is not None
    return Dataset(
        name=name,
        classes=tuple(meta["classes"]),
        train=train,
        validation=part("val"),
        test=part("test"),
        mean=tuple(meta["mean"]),
        std=tuple(meta["std"]),
        skipped=meta.get("skipped", 0),
        validation_statistics=None if meta.get("val") is None else (tuple(meta["val"][0]), tuple(meta["val"][1])),
    )


DATASETS: dict[str, Callable[[DataConfig, Progress], Dataset]] = {
    "digits": load_digits,
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "folder": load_folder,
}


def validation_images(dataset: Dataset, parts: Split) -> int:
    """How many there are: set aside from the training set, or the data set's own."""
    return len(dataset.validation or ()) if parts.validation is None else len(parts.validation)
