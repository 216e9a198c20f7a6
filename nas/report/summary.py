"""A study in sentences: what was searched, how long, what was found and how sure that is; and as a paper's methods paragraph."""

from pathlib import Path
from statistics import mean

from nas.config import METRIC_WORDS
from nas.paths import PRESET
from nas.report.facts import elapsed_seconds, time_spent
from nas.report.record import FullRecord
from nas.report.words import (
    capitalised,
    count_draws,
    count_text,
    counts_line,
    finalist_mean_text,
    flop_text,
    listed,
    number_text,
    recipe_texts,
    score_text,
    time_text,
)
from nas.runs.card import ModelCard
from nas.runs.record import RunRecord
from nas.runs.statistics import Expectation, accuracy_interval, pooled_deviation
from nas.study.finalists import Finalist
from nas.study.outcomes import COUNTED, count_trained
from nas.study.settings import NOT_IMPORTABLE, PRESETS_SPACE


def summary(record: FullRecord) -> list[str]:
    """Paragraphs, in plain text."""
    if record.settings.space == PRESETS_SPACE:
        return [f"The study has no search, only presets retrained on {data_text(record)}.", *_runs(record)]
    return [part for part in (_searched(record), _spent(record), _found(record), _sureness(record)) if part] + _runs(record)


def _runs(record: FullRecord) -> list[str]:
    """A sentence for each; of several the chosen one is named as such."""
    chosen = record.chosen_run if len(record.runs) > 1 else None
    found = record.expected.get("clean")
    return [
        run_sentence(run, found) + " This run is the chosen one." if run is chosen else run_sentence(run) for run in record.runs
    ]


def data_text(record: FullRecord) -> str:
    settings, shape, data = record.settings, record.settings.shape, record.settings.data
    part = f", {data.subset:,} of the images" if data.subset is not None else ""
    if settings.validation_images is not None:
        part = f", {settings.train_images:,} training and {settings.validation_images:,} validation images"
    name = f"the folder {Path(data.folder).name}" if data.dataset == "folder" and data.folder else data.dataset
    return f"{name} ({shape.classes} classes, {shape.channels}×{shape.size}×{shape.size}{part})"


def budget_text(record: FullRecord) -> str:
    return listed(record.settings.budget.parts())


def _searched(record: FullRecord) -> str:
    counts = record.counts
    drawn, over = count_draws(counts), counts.get("over_budget", 0)
    text = f"The space {record.settings.space} was searched for networks with at most {budget_text(record)}, "
    text += f"on {data_text(record)}. "
    if not drawn:
        return text + "There is no trial yet."
    text += f"{count_trained(counts):,} of {number_text(drawn, 'candidate')} were trained, for up to "
    text += f"{number_text(record.epochs, 'epoch')} each; {over:,} ({over / drawn:.0%}) were over budget and not trained. "
    text += f"Outcomes: {counts_line(counts)}."
    if record.led:
        return text + f" The search is still running; this is its state at {record.read:%Y-%m-%d %H:%M}."
    if unended := counts.get("running", 0):
        text += f" The search was stopped with {number_text(unended, 'training')} unfinished; the same command resumes."
    return text


def _spent(record: FullRecord) -> str:
    shares = time_spent(record.trials, record.finals)
    if not shares:
        return ""
    seconds, epochs = sum(one.seconds for one in shares), sum(one.epochs for one in shares)
    elapsed = elapsed_seconds([*record.trials, *record.finals])
    text = f"The workers trained and evaluated for {time_text(seconds)} in total ({number_text(epochs, 'epoch')}); "
    text += f"the search took {time_text(elapsed)}, including pauses."
    pruned = [one for one in record.trials if one.outcome == "pruned_early" and one.curve and not one.imported]
    if pruned and record.epochs:
        saved = sum(record.epochs - one.epochs for one in pruned)
        mean_epochs = mean(one.epochs for one in pruned)
        were = "network was" if len(pruned) == 1 else "networks were"
        text += f" Pruning saved {number_text(saved, 'epoch')}: {len(pruned)} {were} pruned, "
        text += f"on average after {mean_epochs:.1f} of {record.epochs} epochs."
    return text


def _found(record: FullRecord) -> str:
    best = record.best
    if best is None:
        return "No trial has completed yet."
    text = f"The best trial is trial {best.number}: {best.architecture}, {best.params:,} parameters"
    macs = "" if best.macs is None else f" and {count_text(best.macs)} MACs"
    worth = score_text(best.accuracy or 0.0, record.settings.study.metric)
    text += f"{macs}; {worth} after {number_text(best.epochs, 'epoch')} of the search."
    text += "".join(f" {capitalised(sentence)}." for sentence in record.settings.uncounted)
    return text + (" It was chosen by its training as a finalist, not by this value." if len(record.finalists) > 1 else "")


def _sureness(record: FullRecord) -> str:
    """How far the best is ahead, measured by what another seed changes."""
    finalists = record.finalists
    if not finalists:
        once = "It was trained with one seed, and selected by that result. Trials that are worse by a few tenths of a point, or "
        once += "by an image or two, may be as good. "
        return "" if record.best is None else once + "To compare the best with several seeds: nas search --finalists 3."
    winner = finalists[0]
    text = f"The best {len(finalists)} trials were trained again for {number_text(winner.epochs, 'epoch')}: "
    text += f"{_mean_text(winner)} for the winner"
    if len(finalists) == 1:
        return text + "."
    second = finalists[1]
    gap = 100 * (winner.mean - second.mean)
    text += f", {_mean_text(second)} for the second, trial {second.number}. "
    spread = [one.deviation for one in finalists if one.deviation is not None]
    if not spread:
        return text + f"Each was trained once, so the difference of {gap:.2f} points may be chance."
    noise = 100 * pooled_deviation(spread)
    seeds = min(len(winner.accuracies), len(second.accuracies))
    error = noise * (2 / seeds) ** 0.5
    verdict = "more than" if gap > 2 * error else "within"
    return text + (
        f"The standard deviation between seeds is {noise:.2f} points (pooled over the finalists). The first two differ by "
        f"{gap:.2f} points, {verdict} two standard errors (2 × {error:.2f})"
        + ("." if gap > 2 * error else ": either may be the better one.")
    )


def _mean_text(finalist: Finalist) -> str:
    return f"{finalist_mean_text(finalist)} (n = {len(finalist.accuracies)})"


def run_sentence(run: RunRecord, expected: Expectation | None = None) -> str:
    """`expected`: of one that held-out images chose among several."""
    card = run.card
    text = f"Retrained: {card.subject}, {card.params:,} parameters, {number_text(card.candidate.train.epochs, 'epoch')} on "
    text += f"{card.train_images:,} images, seed {card.seed}, in {time_text(card.seconds)} on {card.device} ({card.precision})"
    accuracy = run.test_accuracy
    if accuracy is None or card.test_images is None:
        why = "it was trained on the test labels" if card.includes_test_labels else "there are no labelled test images"
        return f"{text}. There is no test accuracy, because {why}.{_held_out_sentence(card, expected)}"
    how = "" if card.tta == "none" else f" with {card.tta} test-time augmentation ({card.test_accuracy:.2%} without)"
    text += f": {accuracy:.2%} of {card.test_images:,} test images{how}; {_interval_text(accuracy, card.test_images)}."
    if card.test_balanced_accuracy is not None and card.test_macro_f1 is not None and card.metric != "accuracy":
        text += f" Balanced accuracy {card.test_balanced_accuracy:.2%}, macro F1 {card.test_macro_f1:.2%} on these images."
    return text + _held_out_sentence(card, expected)


def _held_out_sentence(card: ModelCard, expected: Expectation | None) -> str:
    """With a space before it; nothing where none were set aside."""
    held_out = card.held_out
    if held_out is None:
        return ""
    text = f" Accuracy on {held_out.images:,} held-out training images: {held_out.accuracy:.2%}; "
    if expected is None:
        text += f"{_interval_text(held_out.accuracy, held_out.counted)}."
    else:
        low, high = expected.interval
        text += (
            f"it was selected as the best of {expected.among} on them, so expect {expected.value:.2%} on new images, "
            f"95 % interval {low:.2%} to {high:.2%}."
        )
    if held_out.score is not None:
        text += f" {capitalised(METRIC_WORDS[card.metric])} {held_out.score:.2%} on these images."
    return text + (f" {remark}" if (remark := grouped_remark(card)) else "")


def _interval_text(accuracy: float, images: float) -> str:
    low, high = accuracy_interval(accuracy, images)
    return f"95 % interval {low:.2%} to {high:.2%}"


def grouped_remark(card: ModelCard) -> str:
    """What groups do to the interval of images that were set aside; nothing where they come in none."""
    column, held_out = card.data.group_column, card.held_out
    if column is None or held_out is None:
        return ""
    if held_out.effective_images is None:  # it is from before groups were counted
        return f"The interval treats images as independent; images of one {column} are similar, so it is too narrow."
    return f"Images of one {column} are similar: for the interval they count as {held_out.effective_images:,.0f} images."


def methods(record: FullRecord) -> str:
    """A paragraph for a paper, written from the configuration."""
    settings, counts = record.settings, record.counts
    packages, strategies = settings.environment.packages, settings.study
    counter = "torch's FlopCounterMode" if packages.get("fvcore") == NOT_IMPORTABLE else "fvcore"
    trained = count_trained(counts)
    drawn = sum(text.startswith(("int ", "float ", "one of ")) for text in settings.parameters.values())
    length = f"up to {number_text(record.epochs, 'epoch')}"
    if strategies.trial_compute is not None:
        length += f" (at most {flop_text(strategies.trial_compute)}, 6 × MACs × images)"
    if strategies.final_compute is not None:
        length += f", small networks for less, to rank them for a final training of {flop_text(strategies.final_compute)},"
    searched = (
        f"Architectures and recipes were searched jointly with Optuna {packages.get('optuna', '?')} in a space of "
        f"{number_text(drawn, 'parameter')} under a budget of {budget_text(record)}, counted with {counter} "
        f"before training; candidates over budget ({counts.get('over_budget', 0)}) were not trained. "
        f"Candidates were proposed by {strategies.sampler.name} and trained for {length} on "
        f"{data_text(record)}, with early stopping by {strategies.pruner.name} on the validation {record.metric} of the averaged "
        f"weights; {number_text(trained, 'network')} "
        f"{'was' if trained == 1 else 'were'} trained ({counts_line(counts, COUNTED)}). "
    )
    text = searched if settings.space != PRESETS_SPACE else f"Reported networks were trained on {data_text(record)}. "
    if record.finalists:
        winner = record.finalists[0]
        text += (
            f"The best {len(record.finalists)} were trained again for {number_text(winner.epochs, 'epoch')} with "
            f"{number_text(len(winner.accuracies), 'seed')} each, and the highest mean was selected. "
        )
    if (run := record.chosen_run) is not None:
        which = "The selected network" if settings.space != PRESETS_SPACE else run.card.subject.removeprefix(PRESET)
        text += f"{which} ({run.card.params:,} parameters) was trained on {run.card.train_images:,} images: "
        text += "; ".join(recipe_texts(run.card.candidate.train).values()).replace("_", " ") + ". "
    text += f"All computations used PyTorch {packages.get('torch', '?')}; seed {settings.seed}."
    return text
