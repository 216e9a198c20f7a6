"""The dashboard's view of a study: what it adds, what it agrees on with the other commands, and that it changes nothing."""

import io
import json
import shutil
import threading
import urllib.error
import urllib.request
import wsgiref.simple_server
import xml.etree.ElementTree as xml
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import optuna
import pytest

from nas.dashboard import _Quiet, _Server, make_app, serve
from nas.dashboard.view import StudyView, draw_curve
from nas.errors import ConfigError
from nas.paths import StudyPaths
from nas.runs.select import find_subject
from nas.study.storage import open_study
from nas.train.checkpoint import read_curve
from tests.browser import opened
from tests.conftest import unpooled


@contextmanager
def served(paths: StudyPaths) -> Iterator[str]:
    app = make_app(open_study(paths), paths)
    server = wsgiref.simple_server.make_server("127.0.0.1", 0, app, server_class=_Server, handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def fetched(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return json.load(answer)


def shown(paths: StudyPaths) -> Any:
    """What the page of the study shows."""
    with served(paths) as address:
        return fetched(f"{address}/api/studies/1")


def asked(address: str, method: str, body: dict[str, Any]) -> int:
    """The answer's status."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(address, json.dumps(body).encode(), headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def attributes(trial: dict[str, Any]) -> dict[str, str]:
    return {one["key"]: one["value"] for one in trial["user_attrs"]}


def test_every_trial_carries_what_is_known_of_it(study: StudyPaths) -> None:
    for trial, frozen in zip(shown(study)["trials"], open_study(study).get_trials(), strict=True):
        found = attributes(trial)
        assert found["outcome"] == frozen.user_attrs["outcome"].replace("_", " ")
        assert int(found["params"]) == frozen.user_attrs["params"]
        assert int(found["macs"]) == frozen.user_attrs["macs"]
        assert found["architecture"] == frozen.user_attrs["architecture"]
        assert ("seconds per epoch" in found) == bool(frozen.intermediate_values)
        assert ("over budget by" in found) == (found["outcome"] == "over budget")


def test_finished_trial_has_its_layers_its_recipe_and_its_curve(study: StudyPaths) -> None:
    assert "polyline" in draw_curve(read_curve(study.trial(find_number(study)).metrics)[:1], "Trial 0"), "of one epoch"
    with served(study) as address:
        trial = next(t for t in fetched(f"{address}/api/studies/1")["trials"] if t["state"] == "Complete")
        assert "### Layers" in trial["note"]["body"]
        assert "| classifier | Linear | 10 |" in trial["note"]["body"]
        assert "**Recipe** epochs 2" in trial["note"]["body"]
        files = {one["filename"]: one for one in trial["artifacts"]}
        assert files.keys() == {"curve.svg", "epochs.csv"}
        at = f"{address}/artifacts/1/{trial['trial_id']}/"
        with urllib.request.urlopen(at + files["curve.svg"]["artifact_id"], timeout=30) as answer:
            assert answer.headers["Content-Type"] == "image/svg+xml"
            picture = xml.parse(io.BytesIO(answer.read()))
        assert len(list(picture.iter("{http://www.w3.org/2000/svg}polyline"))) == 2
        with urllib.request.urlopen(at + files["epochs.csv"]["artifact_id"], timeout=30) as answer:
            assert len(answer.read().decode().splitlines()) == 3
        assert asked(at + "1-ffff-1", "GET", {}) in (404, 500)


def test_best_of_the_dashboard_is_the_best_of_every_command(study: StudyPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    best = find_number(study)
    assert shown(study)["best_trials"][0]["number"] == best
    trials = open_study(study).get_trials()
    other = next(t.number for t in trials if t.user_attrs["outcome"] == "trained" and t.number != best)
    monkeypatch.setattr("nas.dashboard.view.best_of", lambda of: (of.get_trials(deepcopy=False)[other], None))
    assert shown(study)["best_trials"][0]["number"] == other, "a finalist, say"


def test_over_budget_is_infeasible_in_the_form_that_the_dashboard_reads(study: StudyPaths) -> None:
    writable = optuna.load_study(study_name="tiny", storage=unpooled(study.database))
    trial = writable.ask()
    trial.set_user_attr("params", 5000)
    trial.set_user_attr("outcome", "over_budget")
    trial.set_constraint("params", 0.25)
    writable.tell(trial, state=optuna.trial.TrialState.PRUNED)
    last = shown(study)["trials"][-1]
    assert last["constraints"] == [0.25]
    assert attributes(last)["over budget by"] == "25% of params"


def test_notes_that_another_page_adds_do_not_disturb_the_reading_of_them(study: StudyPaths) -> None:
    view = StudyView(open_study(study), study)  # type: ignore[abstract]
    for trial_id in view._all_notes():
        view._notes[-trial_id - 1] = "another"
    assert "another" in view._all_notes().values()


def test_accuracy_against_cost_is_among_its_plots(study: StudyPaths) -> None:
    plots = shown(study)["plotly_graph_objects"]
    assert {plot["id"] for plot in plots} == {"accuracy-params", "accuracy-macs"}
    assert all(json.loads(plot["graph_object"])["data"] for plot in plots)


def test_dashboard_changes_nothing(study: StudyPaths) -> None:
    before = study.database.read_bytes()
    with served(study) as address:
        for method, place, body in (
            ("DELETE", "studies/1", {}),
            ("POST", "studies/1/rename", {"study_name": "other"}),
            ("POST", "studies", {"study_name": "new", "directions": ["minimize"]}),
            ("PUT", "studies/1/1/note", {"version": 2, "body": "mine"}),
        ):
            assert asked(f"{address}/api/{place}", method, body) >= 400
            assert fetched(f"{address}/api/studies")["study_summaries"][0]["study_name"] == "tiny"
    assert study.database.read_bytes() == before


def test_trial_whose_folder_is_gone_is_still_shown(study: StudyPaths) -> None:
    shutil.rmtree(study.trials)
    trial = next(trial for trial in shown(study)["trials"] if trial["state"] == "Complete")
    assert "cannot be read, so the network is unknown" in trial["note"]["body"]
    assert trial["artifacts"] == []


def test_port_in_use_is_said_with_another(study: StudyPaths) -> None:
    with served(study) as address:
        port = int(address.rpartition(":")[2])
        with pytest.raises(ConfigError) as refused:
            serve(study, "127.0.0.1", port, lambda address: None)
    assert refused.value.message == f"port {port} of 127.0.0.1 is in use"
    assert refused.value.hint == f"nas dashboard --port {port + 1}"


def find_number(paths: StudyPaths) -> int:
    return int(find_subject(paths, "best").title.removeprefix("trial "))


@pytest.mark.slow
def test_browser_shows_the_study_and_a_trial(study: StudyPaths) -> None:
    number = find_number(study)
    with served(study) as address, opened(f"{address}/dashboard/studies/1") as (page, heard):
        page.wait_for_selector(f"text=Best Trial (number={number})", timeout=30_000)
        page.wait_for_selector("text=Accuracy against parameters", timeout=30_000)
        page.goto(f"{address}/dashboard/studies/1/trials?numbers={number}")
        page.wait_for_selector("h3:has-text('Layers')", timeout=30_000)
        page.wait_for_selector("text=curve.svg", timeout=30_000)
        page.wait_for_selector("text=seconds per epoch", timeout=30_000)
        assert page.query_selector("text=Best Trial")
        assert [one for one in heard.requests if not one.startswith(address)] == []
