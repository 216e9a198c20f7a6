"""`nas best`: the table for people, the same as JSON, and the way on to `nas retrain`."""

import json

import pytest

from nas.paths import StudyPaths
from nas.report.compare import report_best
from nas.study.settings import read_settings
from tests.conftest import Nas


def test_best_is_said_above_the_front(nas: Nas, study: StudyPaths) -> None:
    report = report_best(study)
    done = nas("best", "--study", "tiny")
    first, empty, head, *table = done.out.splitlines()
    assert done.code == 0
    assert first.startswith(f"Study tiny, best: trial {report.best.number:4d}  completed ")
    assert (empty, head.split()) == ("", ["trial", "parameters", "MACs", "accuracy", "network"])
    assert [line.split()[:2] for line in table] == [[str(row.number), f"{row.params:,}"] for row in report.front]
    assert [line.endswith("← best") for line in table] == [row.number == report.best.number for row in report.front]
    assert all(f"{row.accuracy:.2%}  {row.architecture}" in line for row, line in zip(report.front, table, strict=True))
    assert done.err == f"Next:  nas retrain {report.best.number} --study tiny\n"
    smallest = report.front[0]
    done = nas("best", "--study", "tiny", "--max-params", str(smallest.params))
    marked = [line for line in done.out.splitlines() if line.endswith("← best")]
    assert [line.split()[0] for line in marked] == [str(smallest.number)]
    assert done.err == f"Next:  nas retrain {smallest.number} --study tiny\n"


def test_best_as_json(nas: Nas, study: StudyPaths) -> None:
    done = nas("best", "--study", "tiny", "--max-params", "3k", "--max-macs", "1M", "--json")
    found = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert (found["study"], found["max_params"], found["max_macs"]) == ("tiny", 3000, 1_000_000)
    assert found["front"][-1] == found["best"]
    assert found["best"]["outcome"] == "trained"
    assert all(row["macs"] <= 1_000_000 for row in found["front"])


def test_products_that_no_rule_counts_are_named_wherever_a_studys_counts_are(nas: Nas, study: StudyPaths) -> None:
    sentence = "the MACs of lstm in block Mine are not counted, because there is no rule for them"
    assert "are not counted" not in nas("best", "--study", "tiny").out
    study.settings.write_text(read_settings(study).model_copy(update={"uncounted": (sentence,)}).to_json())
    assert nas("best", "--study", "tiny").out.endswith(f"\nT{sentence[1:]}.\n")
    assert nas("best", "--study", "tiny", "--json").json["uncounted"] == [sentence]
    assert nas("report", "--study", "tiny").code == 0
    assert f" T{sentence[1:]}." in study.report.read_text()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("--max-params 10", "no completed network of study 'tiny' has at most 10 parameters: the smallest has "),
        ("--max-macs 10", "no completed network of study 'tiny' has at most 10 MACs: the smallest has "),
        ("--max-params few", "a count is a whole number above 0, such as 5M, 300k or 5_000_000, but got 'few'"),
        ("--study tina", "there is no study 'tina'"),
    ],
)
def test_mistakes_are_sentences(typed: str, message: str, nas: Nas, study: StudyPaths) -> None:
    done = nas("best", "--study", "tiny", *typed.split())
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"Error: {message}")
    assert "\nNext:  " in done.err
