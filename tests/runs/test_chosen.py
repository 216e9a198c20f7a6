"""Which run is taken where none is named: all orders of retraining one network, choosing among several, and removing runs."""

import os
import shutil
from dataclasses import replace

import pytest

from nas import api
from nas.errors import NasError, StudyError
from nas.paths import StudyPaths, TrialPaths
from nas.report.record import read_record
from nas.report.summary import summary
from nas.runs.card import HeldOut, ModelCard, read_card, write_card
from nas.runs.select import Network, find_chosen, find_run, find_subject, finished_runs, group, read_choice, record_choice
from nas.runs.statistics import after_choice


class Runs:
    """Cards of a study's runs, by hand: `best` is the search's best trial, `other` the other one."""

    def __init__(self, study: StudyPaths) -> None:
        (template,) = finished_runs(study)
        self.paths, self.template = study, study.folder / "template"
        shutil.move(template.folder, self.template)
        best = find_subject(study, "best").title
        self.titles = {"best": best, "other": {"trial 0": "trial 1", "trial 1": "trial 0"}[best], "preset": "preset:resnet-443"}
        self.count = 0
        self.last: list[Network] = []

    def train(self, word: str, score: float | None = None) -> tuple[TrialPaths, ModelCard]:
        run = TrialPaths(self.paths.retrained / f"{word}{self.count}")
        shutil.copytree(self.template, run.folder)
        held_out = None if score is None else HeldOut(images=9, accuracy=score, shifted_accuracy=score)
        card = read_card(run).model_copy(update={"subject": self.titles[word], "seed": self.count, "held_out": held_out})
        card = write_card(run, card)
        os.utime(run.card, (self.count + 1, self.count + 1))
        self.count += 1
        return run, card

    def step(self, step: str) -> None:
        """`best` retrains it; `other>best` chooses the first of two networks, `best*2` among two seeds; `-best0` removes a run,
        and `again` chooses again."""
        if step.startswith("-"):
            shutil.rmtree(self.paths.retrained / step[1:])
        elif step == "again" or ">" in step or "*" in step:
            if step != "again":
                word, star, _ = step.partition("*")
                runs = [self.train(name, 0.9 - i / 10) for i, name in enumerate([word, word] if star else step.split(">"))]
                self.last = list(group(runs))
            record_choice(self.paths, self.last, "clean")
        else:
            self.train(step)


@pytest.fixture
def runs(study: StudyPaths) -> Runs:
    return Runs(study)


TABLE = {
    # Without a choice: the search's best, else the latest.
    "best": ("best0", "", "the latest run"),
    "other": ("other0", "", "the latest run"),
    "best other": ("best0", "other1", "the latest run of the best trial of the search, BEST"),
    "other best": ("best1", "", "the latest run of the best trial of the search, BEST"),
    "other preset": ("preset1", "", "the latest run; the best trial of the search, BEST, has not been retrained"),
    # A choice among several networks stands, whatever single one is retrained.
    "other>best": ("other0", "", "among 2 runs of 2 networks, by the accuracy on held-out images"),
    "best other>best": ("other1", "", "among 2 runs of 2 networks"),
    "other>best best": ("other0", "best2", "among 2 runs of 2 networks"),
    "other>best other preset": ("other0", "other2 preset3", "among 2 runs of 2 networks"),
    "other>best best again": ("other0", "", "among 2 runs of 2 networks"),
    "other>best best>other": ("best2", "", "among 2 runs of 2 networks"),
    # Seeds of one network choose a run, and no network.
    "best*2": ("best0", "", "among 2 runs of BEST, by the accuracy on held-out images"),
    "best*2 best": ("best0", "best2", "among 2 runs of BEST"),
    "best*2 other*2": ("best0", "other2 other3", "among 2 runs of BEST"),
    "best*2 other>preset": ("other2", "", "among 2 runs of 2 networks"),
    "best other*2": ("best0", "other1 other2", "the latest run of the best trial of the search, BEST"),
    "other*2": ("other0", "", "among 2 runs of OTHER"),
    "other*2 preset": ("other0", "preset2", "among 2 runs of OTHER"),
    "other*2 best": ("best2", "", "the latest run of the best trial of the search, BEST"),
    # What is removed is not taken.
    "other>best -best1": ("other0", "", "among 2 runs of 2 networks"),
    "other>best -other0": ("best1", "", "the latest run"),
    "other>best best -other0": ("best2", "", "the latest run"),
    "other>best preset -other0": ("best1", "preset2", "the latest run of the best trial of the search, BEST"),
    "other>best preset -other0 -best1": ("preset2", "", "the latest run"),
    "other>best -other0 best*2": ("best2", "", "among 2 runs of BEST"),
}


@pytest.mark.parametrize("steps", TABLE)
def test_one_run_is_taken_and_what_came_later_is_named(runs: Runs, steps: str) -> None:
    name, newer, why = TABLE[steps]
    for step in steps.split():
        runs.step(step)
    chosen = find_chosen(runs.paths)
    assert (chosen.name, " ".join(chosen.newer)) == (name, newer)
    assert why.replace("BEST", runs.titles["best"]).replace("OTHER", runs.titles["other"]) in chosen.why
    assert (chosen.trouble is not None) == ("-other0" in steps and chosen.choice is None)

    said: list[str] = []
    assert find_run(runs.paths, None, said.append) == find_run(runs.paths, "chosen") == chosen.run
    assert api.open_study("tiny").chosen.name == name
    several = len(finished_runs(runs.paths)) > 1
    assert (f"Network {name}: {chosen.why}" in said) == several
    if newer:
        last = chosen.newer[-1]
        trained = "was" if len(chosen.newer) == 1 else f"and {len(chosen.newer) - 1} more were"
        assert said[-1].startswith(f"Warning: {last} {trained} trained later")
        assert said[-1].endswith(f" and not used: --run {last} uses it")


def test_best_is_the_searchs_best_and_says_what_was_chosen(runs: Runs) -> None:
    for step in ("other>best", "best"):
        runs.step(step)
    said: list[str] = []
    assert find_run(runs.paths, "best", said.append, "nas export ").folder.name == "best2"
    (sentence,) = said
    assert sentence.startswith(
        f"Warning: `best` means the best trial of the search, {runs.titles['best']}, and its latest run best2; "
    )
    assert "; nas export chosen uses other0, chosen on " in sentence


def test_choice_says_by_what_it_was_made(runs: Runs) -> None:
    runs.step("other>best")
    networks = runs.last
    choice = read_choice(runs.paths)
    assert (choice.run, choice.by, choice.among) == ("other0", "clean", ("other0", "best1"))
    assert choice.networks == (runs.titles["other"], runs.titles["best"])
    unjudged = [
        replace(network, cards={seed: card.model_copy(update={"held_out": None}) for seed, card in network.cards.items()})
        for network in networks
    ]
    of_one = [Network(cards=unjudged[1].cards | unjudged[0].cards, runs=unjudged[1].runs | unjudged[0].runs)]
    for ranked, by in ((unjudged, "search"), (of_one, "order")):
        runs.paths.choice.unlink()
        record_choice(runs.paths, ranked, "shifted")
        choice = read_choice(runs.paths)
        assert choice.by == by


def test_damaged_choice_is_said_and_a_gone_one_named(runs: Runs) -> None:
    for step in ("other>best", "preset"):
        runs.step(step)
    runs.paths.choice.write_text("{")
    chosen = find_chosen(runs.paths)
    assert (chosen.name, chosen.newer) == ("best1", ("preset2",))
    assert str(chosen.trouble).startswith(f"the choice among retrained networks cannot be read: {runs.paths.choice}: ")
    runs.step("again")
    runs.step("-other0")
    chosen = find_chosen(runs.paths)
    assert str(chosen.trouble).startswith("other0, chosen on ")
    assert chosen.sentences()[1] == f"Warning: {chosen.trouble}"
    assert str(chosen.trouble).endswith(" by the accuracy on held-out images, is gone")


def test_latest_run_is_taken_where_the_searchs_best_cannot_be_told(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(paths: StudyPaths) -> None:
        raise StudyError("the database is away")

    for step in ("best", "other"):
        runs.step(step)
    monkeypatch.setattr("nas.runs.select.open_study", refuse)
    chosen = find_chosen(runs.paths)
    assert (chosen.name, chosen.trouble) == ("other1", "the best trial of the search is unknown: the database is away")
    runs.step("other>best")
    chosen = find_chosen(runs.paths)
    assert (chosen.name, chosen.trouble) == ("other2", None), "a choice needs no database"


def test_without_runs_none_is_taken(study: StudyPaths) -> None:
    shutil.rmtree(study.retrained)
    assert find_chosen(study) is None
    with pytest.raises(NasError, match="has no retrained network yet"):
        find_run(study, "chosen")


def test_the_report_expects_less_of_the_chosen_one_than_was_measured(runs: Runs) -> None:
    runs.step("other>best")
    record, found = read_record(runs.paths), after_choice([[0.9], [0.8]], 0, 0, 9)
    assert record.expected["clean"] == found
    assert (
        f"Accuracy on 9 held-out training images: 90.00%; it was selected as the best of 2 on them, so expect "
        f"{found.value:.2%} on new images"
    ) in " ".join(summary(record))
    runs.step("-best1")
    assert read_record(runs.paths).expected == {}
