"""`nas retrain`, `nas ablate`, `nas baseline`: trainings after a search."""

import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from nas.cli import note, pick, print_json, table_lines
from nas.cli.options import DatasetOption, JsonOption, LogOption, QuietOption, StudyOption, command, offer
from nas.errors import ConfigError, choices_sentence
from nas.paths import PRESET, StudyPaths, existing_study, known_studies, remember_study
from nas.specs import HOLD_OUT, AblateSpec, BaselineSpec, Criterion, RetrainSpec, SeveralSpec
from nas.specs.options import Given, parse_seeds

if TYPE_CHECKING:
    from nas.display.terminal import TerminalDisplay
    from nas.runs.ablate import Done as AblationDone
    from nas.runs.baseline import Done as BaselinesDone
    from nas.runs.card import ModelCard
    from nas.runs.comparison import Row
    from nas.runs.retrain import Retrained
    from nas.runs.select import Network
    from nas.runs.statistics import Expectation


def _study_of_networks(
    command: str, words: Sequence[str], study: str | None, dataset: str | None, given: Given, display: "TerminalDisplay"
) -> StudyPaths:
    """The named study, or the one used last. For presets also a study for a data set, which is created. Raises NasError."""
    from nas.config import DataConfig
    from nas.runs.context import open_presets_study

    presets_alone = all(word.startswith(PRESET) for word in words)
    if dataset is None:
        if presets_alone and study is None and not known_studies():
            raise ConfigError(
                "there is no study with images to train on", hint=f"nas {command} {' '.join(words)} --dataset cifar10"
            )
        return existing_study(study)
    if not presets_alone:
        raise ConfigError(
            "--dataset is only for preset:NAME, because a study has its own data",
            hint=f"nas {command} preset:robust-resnet64 --dataset cifar10; nas presets shows the names",
        )
    if given.labels is not None:
        raise ConfigError(
            "--labels is only for a study with a table of labels, and cannot be combined with --dataset",
            hint="start a study with nas search --labels FILE, then use --study NAME",
        )
    return open_presets_study(DataConfig(dataset=dataset, folder=given.data_folder), study, display.decoding)


def _end(suspended: int, failures: object) -> None:
    """Ends a command: with suspended trainings as after Ctrl-C, with the command that resumes them."""
    if suspended:
        again = shlex.join(["nas", *sys.argv[1:]])
        left = f"{suspended} training{'s are' if suspended > 1 else ' is'} left"
        note(f"Suspended, {left}. To resume:  {again}")
        sys.exit(130)
    if failures:
        sys.exit(1)


# -------------------------------------------------------------------------------------------------------------- retrainings


@command(
    "retrain",
    """Train networks of a study on all its labelled training data.

Training is longer than in the search. The test set is opened once. The same command resumes.
""",
    "nas retrain best --recipe auto --time 30m",
    "nas retrain top:5 --seeds 3 --recipe long",
    "nas retrain preset:robust-resnet64 --dataset cifar10",
)
def retrain(
    given: Given[RetrainSpec],
    *,
    which: Annotated[
        list[str] | None,
        typer.Argument(
            help="`best`, `top:5`, trial numbers or preset:NAME, one or several. [default: best]",
            autocompletion=offer("subject"),
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Number of seeds for each network, or a list: 0,3,4. [default: 1]", metavar="N")
    ] = None,
    hold_out: Annotated[
        float | None,
        typer.Option(help="Share of the training images to hold out. [default: 0; 0.1 for several networks]", min=0, max=0.5),
    ] = None,
    choose_by: Annotated[
        str,
        typer.Option(help="Choose by the clean or the shifted (corrupted) held-out images.", autocompletion=offer("criterion")),
    ] = "clean",
    workers: Annotated[int | None, typer.Option(help="Networks to train at the same time on the CPU. [default: 1]")] = None,
    study: StudyOption = None,
    dataset: DatasetOption = None,
    log: LogOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    all_seeds = (given.seed,) if seeds is None else parse_seeds(seeds, given.seed)
    words = which or ["best"]
    from nas.display.terminal import TerminalDisplay
    from nas.display.trainings import show_retraining, show_retrainings
    from nas.runs.select import CRITERIA, find_names

    by = next((name for name in CRITERIA if name == choose_by), None)
    if by is None:
        raise ConfigError(f"unknown value {choose_by!r} for --choose-by.{choices_sentence(choose_by, CRITERIA)}")
    with TerminalDisplay(quiet=quiet, log=log) as display:
        paths = _study_of_networks("retrain", words, study, dataset, given, display)
        names = find_names(paths, words)
        if hold_out is None:
            hold_out = HOLD_OUT if len(names) > 1 or by == "shifted" else 0.0
        display.track(paths)
        if len(names) == len(all_seeds) == 1 and workers is None:
            spec = given.build(paths=paths, which=names[0], seed=all_seeds[0], hold_out=hold_out)
            result = show_retraining(spec, display)
        else:
            base = given.build(paths=paths, hold_out=hold_out)
            result = show_retrainings(SeveralSpec(base, names, all_seeds, workers, by), display)
    remember_study(paths)
    if not result.suspended:
        print_json(_retrain_data(result)) if as_json else print("\n".join(_retrain_lines(result, paths)))
    _end(result.suspended, result.failures)


def _retrain_data(result: "Retrained") -> dict[str, object]:
    runs = [
        {"run": network.runs[seed].folder, **card.model_dump(mode="json")}
        for network in result.networks
        for seed, card in network.cards.items()
    ]
    best, expected = result.best and result.best[0].folder, {by: vars(one) for by, one in result.expected.items()}
    return {"runs": runs, "best": best, "expected": expected, "failures": result.failures}


def _retrain_lines(result: "Retrained", paths: StudyPaths) -> list[str]:
    from nas.predict.submission import knows_test_set
    from nas.report.words import flop_text, time_text
    from nas.runs.select import find_chosen

    lines: list[str] = []
    if sum(len(network.runs) for network in result.networks) > 1:
        lines += _retrain_table(result)
    if result.best is None:
        return [*lines, "No network was chosen, because no images were held out. To choose one, train again with --hold-out 0.1."]
    run, card = result.best
    lines.append(f"Trained on {card.train_images:,} images in {time_text(card.seconds)}, {flop_text(card.flop)}: {run.folder}")
    lines += _expected(card, result.expected)
    if (taken := find_chosen(paths)) is not None and taken.name != run.folder.name:
        lines.append(f"Without --run, nas submit uses another run, {taken.name}: {taken.why}")
    test = "" if knows_test_set(paths, card) else "TEST "
    what = "    (TEST: a folder of images, a pickle, a .npy or .npz file)" if test else ""
    return [*lines, f"Next:  nas submit {test}--study {paths.name} --run {run.folder.name}{what}"]


def _retrain_table(result: "Retrained") -> list[str]:
    """A line a network, the best marked."""
    from nas.config import METRIC_WORDS
    from nas.report.tables import Table
    from nas.report.words import count_text

    def score(network: "Network", by: "Criterion") -> str:
        found = network.over_seeds(by)
        if found is None:
            return "–"
        return f"{found.mean:.2%}" + ("" if found.deviation is None else f" ± {100 * found.deviation:.2f}")

    rows = []
    for network in result.networks:
        card, best = network.card, "← best" if network is result.chosen else ""
        searched = "–" if card.search_accuracy is None else f"{card.search_accuracy:.2%}"
        what = card.subject, count_text(card.params), str(len(network.runs))
        rows.append((*what, score(network, "clean"), score(network, "shifted"), searched, best))
    metric = result.networks[0].card.metric
    remarks = ["mean ± standard deviation over the seeds"] if any(len(n.runs) > 1 for n in result.networks) else []
    remarks += [] if metric == "accuracy" else [f"by {METRIC_WORDS[metric]}"]
    columns = ("network", "parameters", "seeds", "held out", "held out, shifted", "in the search", "")
    return [*table_lines(Table(columns, rows)), *([f"({', '.join(remarks)})"] if remarks else [])]


def _expected(card: "ModelCard", chosen: "dict[Criterion, Expectation]") -> list[str]:
    """The expected accuracy and how it was measured. For a network that was `chosen` by it, less than was measured."""
    from nas.config import METRIC_WORDS
    from nas.report.summary import grouped_remark
    from nas.runs.statistics import accuracy_interval

    def percent(accuracy: float, interval: tuple[float, float]) -> str:
        return f"{accuracy:.2%} ({100 * interval[0]:.1f}–{100 * interval[1]:.1f})"

    def expected(by: "Criterion", accuracy: float, images: float) -> str:
        if (found := chosen.get(by)) is None:
            return percent(accuracy, accuracy_interval(accuracy, images))
        return f"{percent(found.value, found.interval)}, measured {found.measured:.2%}"

    lines = []
    if card.test_accuracy is not None and card.test_accuracy_tta is not None and card.test_images is not None:
        averaged = f", {card.test_accuracy:.2%} without test-time augmentation ({card.tta})" if card.tta != "none" else ""
        shift = "" if card.test_shifted_accuracy is None else f"; under a simulated shift {card.test_shifted_accuracy:.2%}"
        tested = percent(card.test_accuracy_tta, accuracy_interval(card.test_accuracy_tta, card.test_images))
        lines.append(f"Official test set, evaluated once: {tested} of {card.test_images:,}{averaged}{shift}")
        if card.metric != "accuracy" and card.test_balanced_accuracy is not None and card.test_macro_f1 is not None:
            lines.append(
                f"On the test set: balanced accuracy {card.test_balanced_accuracy:.2%}, macro F1 {card.test_macro_f1:.2%}"
            )
    elif card.includes_test_labels:
        lines.append("It was trained on the official test labels, too, so there is no test accuracy.")
    else:
        lines.append("The data set has no labelled test images, so there is no test accuracy.")
    if (held_out := card.held_out) is not None:
        lines.append(
            f"Expected accuracy, from {held_out.images:,} held-out images: "
            f"{expected('clean', held_out.accuracy, held_out.counted)}; "
            f"under a simulated shift {expected('shifted', held_out.shifted_accuracy, held_out.shifted_counted)}"
        )
        if chosen:
            lines.append(
                f"(It is the best of {chosen['clean'].among} trainings on these images, partly by chance, so the expected "
                "accuracy is lower than the measured one.)"
            )
        if card.metric != "accuracy":
            word = METRIC_WORDS[card.metric]
            lines.append(f"On the held-out images: {word} {held_out.clean:.2%}; under that shift {held_out.shifted:.2%}")
        if remark := grouped_remark(card):
            lines.append(remark)
    return lines


# ---------------------------------------------------------------------------------------------------------------- ablations


@command(
    "ablate",
    """Train variants of a network, and compare each with the base.

A variant differs from the base in one value (--grid: all combinations). All are trained with the same seeds and evaluated on
held-out training images. The same command resumes; you may add values and seeds.
""",
    "nas ablate best --vary optimiser=sgd,adam --vary activation=relu,gelu --seeds 3",
    "nas ablate preset:resnet-443 --vary blocks=3-3-3,5-5-5 --vary channels=32-64-128,64-128-256",
)
def ablate(
    given: Given[AblateSpec],
    *,
    study: StudyOption = None,
    dataset: DatasetOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    from nas.display.terminal import TerminalDisplay
    from nas.display.trainings import show_ablation
    from nas.report.experiments import write_tables

    with TerminalDisplay(quiet=quiet) as display:
        paths = _study_of_networks("ablate", [given.which], study, dataset, given, display)
        done = show_ablation(given.build(paths=paths), display)
    remember_study(paths)
    written = write_tables(done.ablation, done.folder)
    if as_json:
        print_json(_ablation_data(done))
    else:
        print("\n".join(_ablation_lines(done)))
        print(f"Written: {written}, table.tex, table.csv, runs.csv.   Next:  nas report --study {paths.name}")
    _end(done.suspended, done.failures)


def _ablation_lines(done: "AblationDone") -> list[str]:
    from nas.report.experiments import ablation_sentences, effects_table, variants_table

    ablation = done.ablation
    base, *rest = ablation_sentences(ablation)
    table = variants_table(ablation)
    lines = [base, "", *table_lines(table), "(mean ± standard deviation over the seeds; differences in percentage points)"]
    if effects := effects_table(ablation):
        lines += ["", "Mean effects over the grid:", *table_lines(effects)]
    return [*lines, "", *rest]


def _ablation_data(done: "AblationDone") -> dict[str, object]:
    return {
        "ablation": done.ablation.name,
        "folder": done.folder,
        **pick(done.ablation, "ended", "expected", "judged_images", "metric"),
        "variants": [
            {
                **row.variant.model_dump(mode="json", exclude={"candidate"}),
                "seeds": sorted(row.cards),
                "score": row.over_seeds("clean"),
                "shifted": row.over_seeds("shifted"),
                **pick(row, "diverged", "difference", "shifted_difference", "seconds"),
            }
            for row in done.ablation.rows
        ],
        "effects": done.ablation.effects,
        "failures": done.failures,
    }


# ---------------------------------------------------------------------------------------------------------------- baselines


@command(
    "baseline",
    """Train known networks, such as torchvision's, to compare with.

They are trained on the same images as a network of the study, with its recipe. Those over the budget are marked. No baseline is
ever submitted or exported. The same command resumes. If you change the file, it counts as a new network. Your file runs
with your user's permissions, first in its own process with a time limit, then in a worker process.
""",
    "nas baseline torchvision:resnet18 torchvision:mobilenet_v3_small --epochs 30",
    "nas baseline 'net.py:Net(width=64)' --like preset:resnet-443 --dataset cifar10 --hold-out 0.1",
)
def baseline(
    given: Given[BaselineSpec],
    *,
    study: StudyOption = None,
    dataset: Annotated[
        str | None, typer.Option(help="With --like preset:NAME: begin a study on this data set.", autocompletion=offer("dataset"))
    ] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    if not given.networks:
        raise ConfigError("name at least one network", hint="nas baseline torchvision:resnet18, or your own class, net.py:Net")
    from nas.display.terminal import TerminalDisplay
    from nas.display.trainings import show_baselines

    with TerminalDisplay(quiet=quiet) as display:
        named = f"baseline {shlex.join(given.networks)} --like"
        paths = _study_of_networks(named, [given.like], study, dataset, given, display)
        done = show_baselines(given.build(paths=paths), display)
    remember_study(paths)
    print_json(_baseline_data(done)) if as_json else print("\n".join(_baseline_lines(done, paths.name)))
    _end(done.suspended, done.failures)


def _baseline_lines(done: "BaselinesDone", study: str) -> list[str]:
    from nas.report.experiments import comparison_sentences, networks_table

    if done.comparison is None:
        return ["No training has finished yet."]
    table = networks_table(done.comparison)
    first, *rest = comparison_sentences(done.comparison)
    remark = "(mean ± standard deviation over the seeds)"
    lines = [first, "", *table_lines(table), remark, "", *rest]
    return [*lines, *(f"Written: {run.folder}" for run in done.runs), f"Next:  nas report --study {study}"]


def _baseline_data(done: "BaselinesDone") -> dict[str, object]:
    data = {"runs": [run.folder for run in done.runs], "comparison": None, **pick(done, "failures", "suspended")}
    if (found := done.comparison) is not None:
        data["comparison"] = {
            **pick(found, "like", "recipe", "train", "train_images"),
            "held_out_images": found.held_out,
            "test_images": found.test,
            "metric": found.metric,
            "own": [_row_data(row) for row in found.own],
            "known": [_row_data(row) for row in found.known],
            "differences": [
                {
                    "network": one.known.title,
                    "to": one.ours.title,
                    "on_test": one.on_test,
                    **pick(one.spread, "values", "mean", "deviation", "interval"),
                }
                for one in found.differences
            ],
        }
    return data


def _row_data(row: "Row") -> dict[str, object]:
    seeds = {"seeds": sorted(row.cards), "diverged": row.diverged}
    scores = {"held_out": row.over_seeds("clean"), "shifted": row.over_seeds("shifted"), "test": row.over_seeds("test")}
    cost = pick(row, "params", "macs", "over")
    return {"network": row.title, **cost, **seeds, **scores, "seconds": row.seconds, "runs": list(row.runs)}
