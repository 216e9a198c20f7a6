"""Known networks that were trained: their files, and their comparison with networks of the study that were trained alike: with
the same recipe, for as long, on the same images.

studies/<study>/baselines/<network>-like-<network of the study>-<recipe>-<E>-epochs-seed-N/
    begun.json           a `Definition`, from its start
    metrics.jsonl        one line for each epoch
    model.safetensors    the averaged weights
    evaluation.npz       its predictions on the official test set, if there is one
    baseline.json        a `BaselineCard`, written last: a run that has it has ended; or `diverged.txt` with the reason
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nas.budget import COMPUTED
from nas.config import BudgetConfig, Frozen, MetricName, TrainConfig
from nas.files import sha256_of, write_whole
from nas.foreign.known import KnownNetwork, over_budget
from nas.paths import StudyPaths, TrialPaths
from nas.runs.card import BySeed, ModelCard, TrainedCard, read_card
from nas.runs.select import finished_runs, folders_with
from nas.runs.statistics import Spread, paired
from nas.study.settings import read_settings


class Definition(Frozen):
    """The settings of a baseline, fixed from its start."""

    network: KnownNetwork
    like: str  # `trial 7`, or `preset:resnet-2322`: its recipe, order of images and random numbers are used
    recipe: str  # By name, `auto` resolved
    train: TrainConfig
    tta: str
    seed: int
    hold_out: float
    train_subset: int | None


def begun_runs(paths: StudyPaths) -> list[TrialPaths]:
    return [TrialPaths(file.parent) for file in sorted(paths.baselines.glob("*/begun.json"))]


class BaselineCard(TrainedCard, Definition):
    """A trained known network, without its weights."""

    weights_sha256: str = ""
    evaluation_sha256: str | None = None

    @property
    def params(self) -> int:
        return self.network.params

    @property
    def macs(self) -> int | None:
        return self.network.macs


def write_baseline(run: TrialPaths, card: BaselineCard) -> None:
    """Writes the card with the hashes of the files beside it. Raises OSError."""
    evaluation = sha256_of(run.evaluation) if run.evaluation.is_file() else None
    card = card.model_copy(update={"weights_sha256": sha256_of(run.weights), "evaluation_sha256": evaluation})
    write_whole(run.baseline, (card.to_json() + "\n").encode())


def read_baseline(run: TrialPaths) -> BaselineCard:
    """Raises ConfigError if the file is damaged."""
    return BaselineCard.from_file(run.baseline)


def finished_baselines(paths: StudyPaths) -> list[TrialPaths]:
    """Oldest first."""
    return [TrialPaths(folder) for folder in folders_with(paths.baselines, "baseline.json")]


@dataclass(frozen=True, kw_only=True)
class Row(BySeed[ModelCard | BaselineCard]):
    """A network with its trainings."""

    title: str  # `trial 7`, or `torchvision:resnet18`; with a part of its hash if its code was changed
    params: int
    macs: int | None
    over: dict[str, int]  # By how much it is over the study's budget, for each limit that it breaks
    runs: dict[str, int]  # Seed of each run, diverged ones included, by the run's name


@dataclass(frozen=True)
class Difference:
    """Between a known network and one of the study's."""

    known: Row
    ours: Row
    spread: Spread  # Known minus ours, one value for each common seed
    on_test: bool  # On the official test set, else on held-out images


@dataclass(frozen=True)
class Comparison:
    study: str
    like: str  # The network of the study whose recipe it is
    recipe: str
    train: TrainConfig
    train_images: int | None  # None if no training has completed
    hold_out: float  # Share of the training images that was held out
    train_subset: int | None
    held_out: int  # Number of held-out images
    test: int  # Number of images of the official test set; 0 if there are none
    metric: MetricName
    own: tuple[Row, ...]  # The study's own, the network of `like` first
    known: tuple[Row, ...]

    def only(self, runs: set[str]) -> "Comparison":
        """The known networks with one of these runs, and only these of their runs."""
        rows = []
        for row in self.known:
            seeds = {seed for name, seed in row.runs.items() if name in runs}
            if seeds:
                kept = {name: seed for name, seed in row.runs.items() if seed in seeds}
                cards = {seed: card for seed, card in row.cards.items() if seed in seeds}
                rows.append(replace(row, cards=cards, runs=kept, diverged=tuple(s for s in row.diverged if s in seeds)))
        return replace(self, known=tuple(rows))

    @property
    def differences(self) -> list[Difference]:
        """Between each known network and the network of `like`, or the first of the study's networks if that was not retrained
        alike; for common seeds."""
        if not self.own:
            return []
        ours, found = self.own[0], []
        for row in self.known:
            on_test, held_out = (paired(row.scores(on), ours.scores(on)) for on in ("test", "clean"))
            if (one := on_test or held_out) is not None:
                found.append(Difference(row, ours, one, on_test is not None))
        return found


def find_comparisons(paths: StudyPaths) -> list[Comparison]:
    """One comparison for each recipe, length and set of images of the known networks, oldest first. Raises NasError if a file is
    damaged."""
    trained = [(run, read_baseline(run)) for run in finished_baselines(paths)]
    diverged = [(run, Definition.from_file(run.begun)) for run in begun_runs(paths) if run.diverged.is_file()]
    groups: dict[object, list[tuple[TrialPaths, Definition]]] = {}
    for run, one in [*trained, *diverged]:
        alike = one.like, one.train.canonical(), one.tta, one.hold_out, one.train_subset
        groups.setdefault(alike, []).append((run, one))
    if not groups:
        return []
    settings = read_settings(paths)
    own = [(run, read_card(run)) for run in finished_runs(paths)]
    return [_comparison(paths.name, group, own, settings.budget, settings.study.metric) for group in groups.values()]


def _comparison(
    study: str,
    group: Sequence[tuple[TrialPaths, Definition]],
    own: Sequence[tuple[TrialPaths, ModelCard]],
    limits: BudgetConfig,
    metric: MetricName,
) -> Comparison:
    first = group[0][1]
    cards = [card for _, card in group if isinstance(card, BaselineCard)]
    ours = _own_rows([(run, card) for run, card in own if cards and _is_alike(card, cards[0])], limits)
    ours.sort(key=lambda row: row.title != first.like)
    return Comparison(
        study=study,
        like=first.like,
        recipe=first.recipe,
        train=first.train,
        train_images=cards[0].train_images if cards else None,
        hold_out=first.hold_out,
        train_subset=first.train_subset,
        held_out=cards[0].held_out.images if cards and cards[0].held_out else 0,
        test=(cards[0].test_images or 0) if cards else 0,
        metric=metric,
        own=tuple(ours),
        known=tuple(_known_rows(group)),
    )


def _is_alike(card: ModelCard, known: BaselineCard) -> bool:
    """Whether a retrained network was trained like a known one. Equal numbers of images mean equal images."""
    return (
        card.candidate.train.canonical() == known.train.canonical()
        and card.tta == known.tta
        and card.data_fingerprint == known.data_fingerprint
        and card.train_images == known.train_images
        and not card.includes_test_labels
        and (card.held_out and card.held_out.images) == (known.held_out and known.held_out.images)
    )


def _own_rows(runs: Sequence[tuple[TrialPaths, ModelCard]], limits: BudgetConfig) -> list[Row]:
    by_network: dict[tuple[str, str], list[tuple[TrialPaths, ModelCard]]] = {}
    for run, card in runs:
        by_network.setdefault((card.subject, card.candidate.digest), []).append((run, card))
    rows = []
    for found in by_network.values():
        card = found[0][1]
        computed = {name: COMPUTED[name](card.candidate.arch, card.shape) for name in limits.limited() if name in COMPUTED}
        over = over_budget(limits, {"params": card.params, "macs": card.macs, **computed})
        rows.append(
            Row(
                title=card.subject,
                params=card.params,
                macs=card.macs,
                over=over,
                cards={card.seed: card for _, card in found},
                runs={run.folder.name: card.seed for run, card in found},
            )
        )
    return rows


def _known_rows(group: Sequence[tuple[TrialPaths, Definition]]) -> list[Row]:
    by_network: dict[str, list[tuple[TrialPaths, Definition]]] = {}
    for run, definition in group:  # a network may have several names
        by_network.setdefault(definition.network.digest, []).append((run, definition))
    names = [found[0][1].network.name for found in by_network.values()]
    rows = []
    for name, (digest, found) in zip(names, by_network.items(), strict=True):
        network = found[0][1].network
        title = f"{name} ({digest[:8]})" if names.count(name) > 1 else name
        rows.append(
            Row(
                title=title,
                params=network.params,
                macs=network.macs,
                over=network.over,
                cards={one.seed: one for _, one in found if isinstance(one, BaselineCard)},
                runs={run.folder.name: one.seed for run, one in found},
                diverged=tuple(sorted(one.seed for run, one in found if run.diverged.is_file())),
            )
        )
    return rows
