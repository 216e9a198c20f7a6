"""Blocks of users' own files: read, tried, kept, counted, and all the way to the submission and the export."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

import nas as api
from nas.budget import Budget, count_macs, count_params, quick_macs
from nas.config import ArchConfig, BlockSource, BudgetConfig, Candidate, DataConfig, ImageShape
from nas.data.datasets import load_dataset
from nas.errors import BudgetError, ConfigError, StudyError
from nas.export.standalone import standalone_source
from nas.models import build_model
from nas.models.user_code import blaming, block_class
from nas.paths import TrialPaths, study_paths
from nas.runs.load import _is_in_study, load_network
from nas.space.feasibility import check_blocks
from nas.space.space import Space
from nas.space.space_file import load_space
from nas.specs import SearchSpec
from nas.study.request import resolve
from nas.study.settings import read_settings
from tests.conftest import Done

GUIDE = (Path(__file__).parents[2] / "search_spaces" / "README.md").read_text()
SHUFFLE = next(text for text in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL) if "class ShuffleBlock" in text)
"""The guide's own example."""
SPACE = """\
version: 1
budget: {params: 6k}
blocks: [BLOCKS]
arch:
  stages: 2
  block: BLOCK
  stage: {blocks: 1, channels: {type: int, low: 8, high: 16, step: 4}}
train:
  epochs: 1
  lr: {type: float, low: 0.05, high: 0.2, log: true}
  augment: {crop_padding: 1, flip: none}
"""
PLAIN = """\
from torch import nn
from nas.models.blocks import BlockPlan, ResidualBlock, make_shortcut


class Plain(ResidualBlock):
    def __init__(self, plan):
        super().__init__(plan)
        self.conv = nn.Conv2d(plan.channels_in, plan.stage.channels, 3, plan.stride, 1)
        self.shortcut = make_shortcut(plan)

    def forward(self, x):
        return self.conv(x) + self.shortcut(x)

    def zero_residual(self):
        nn.init.zeros_(self.conv.weight)
"""
SEARCH = ("search", "--space", "space.yaml", "--dataset", "digits", "--device", "cpu", "--study")
DIGITS = ImageShape(channels=1, size=8, classes=10)


def write_space(text: str, block: str = "Plain", entry: str = "my_blocks.py:Plain", choice: str | None = None) -> Path:
    """In the working folder, with `my_blocks.py` beside it."""
    Path("my_blocks.py").write_text(text)
    Path("space.yaml").write_text(SPACE.replace("BLOCKS", entry).replace("BLOCK", choice or block))
    return Path("space.yaml")


def smallest(space: Space) -> ArchConfig:
    return space.candidate(space.first_values).arch


def test_products_that_no_rule_counts_are_refused_under_a_limit_of_multiply_adds() -> None:
    block = PLAIN.replace("return self.conv(x)", "return self.conv(x) + torch.fft.fft2(x).real.mean()")
    write_space(f"import torch\n{block}")
    space, dataset = Path("space.yaml").read_text(), load_dataset(DataConfig(dataset="digits"))
    sentence = "the MACs of fft_fft2 in block Plain are not counted, because there is no rule for them"
    for keys, refused in (("", False), (", macs: 10M", True), (", macs: 10M, uncounted: allow", False)):
        Path("space.yaml").write_text(space.replace("params: 6k", f"params: 6k{keys}"))
        asked = resolve(SearchSpec("space.yaml", "digits"))
        if refused:
            with pytest.raises(BudgetError, match=f"the budget limits MACs, but {sentence}") as error:
                asked.on(dataset)
            assert "uncounted: allow" in str(error.value.hint)
        else:
            assert asked.on(dataset)[2].uncounted == (sentence,)


# ------------------------------------------------------------------------------------------------------------ all the way


@pytest.mark.slow
def test_a_block_from_a_users_file_goes_all_the_way(
    nas: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_space(SHUFFLE, "ShuffleBlock", "my_blocks.py:ShuffleBlock")
    api.search("space.yaml", "digits", study="own", trials=1, finalists=0, device="cpu", quiet=True)
    Path("my_blocks.py").unlink()  # from here on the study stands alone, in another working folder
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    study = api.search(study="own", trials=2, finalists=0, device="cpu", quiet=True)
    trained = [trial for trial in study.trials if trial.outcome in ("trained", "pruned_early")]
    assert len(trained) == 2
    for trial in trained:
        assert trial.row.architecture.startswith("ShuffleBlock")
        assert trial.params == sum(weight.numel() for weight in build_model(trial.arch, DIGITS).parameters())
        assert trial.macs == count_macs(trial.arch, DIGITS)

    shown = nas("show", "best", "--study", "own")
    assert shown.code == 0, shown.err
    assert "1 × ShuffleBlock [my_blocks.py, " in shown.out
    assert "ShuffleBlock" in study.report().read_text()

    run = study.retrain(epochs=1, device="cpu", quiet=True)
    assert type(run.build().stages[0][0]).__name__ == "ShuffleBlock"
    submission = study.submit(device="cpu", quiet=True)
    with submission.output.open() as file:
        assert len(list(csv.DictReader(file))) == submission.images > 0

    images = torch.randint(0, 256, (3, 8, 8, 1), dtype=torch.uint8)
    with torch.inference_mode():
        expected = run.predictor()(images)
    folder = study.export(format="weights", quiet=True).path
    torch.save(images, folder / "images.pt")
    program = "import json, torch, model; print(json.dumps(model.load()(torch.load('images.pt')).tolist()))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, env={"PATH": "", "PYTHONPATH": ""}
    )
    assert done.returncode == 0, done.stderr
    assert torch.allclose(torch.tensor(json.loads(done.stdout)), expected, atol=1e-4)
    assert "nas." not in "".join(re.findall(r"^\s*(?:from|import) .*$", (folder / "model.py").read_text(), re.MULTILINE))
    for form in ("torch", "onnx"):
        if form == "onnx":
            pytest.importorskip("onnxruntime")
            pytest.importorskip("onnxscript")
        assert study.export(format=form, quiet=True).difference < 1e-3


def test_another_text_is_another_study(nas: Callable[..., Done], tmp_path: Path) -> None:
    write_space(PLAIN)
    before = load_space("space.yaml")
    Path("my_blocks.py").write_text(PLAIN + "\n# changed\n")
    after = load_space("space.yaml")
    assert before.fingerprint != after.fingerprint
    assert smallest(before).block_source != smallest(after).block_source
    words = before.describe()["blocks.Plain"]
    assert re.fullmatch(r"my_blocks\.py, sha256 [0-9a-f]{12}", words)


# ------------------------------------------------------------------------------------------------------- its description


def test_a_candidate_carries_its_block_through_json() -> None:
    space = load_space(str(write_space(PLAIN)))
    candidate = space.candidate(space.first_values)
    again = Candidate.from_json(candidate.to_json())
    Path("my_blocks.py").unlink()
    assert again == candidate
    assert again.digest == candidate.digest
    assert count_params(again.arch, DIGITS) == sum(w.numel() for w in build_model(candidate.arch, DIGITS).parameters())
    assert quick_macs(again.arch, DIGITS) == count_macs(candidate.arch, DIGITS)


def test_a_block_is_built_in_or_has_a_source() -> None:
    stages = [{"blocks": 1, "channels": 8}]
    with pytest.raises(
        ValidationError, match="must be one of 'basic', 'preact', 'bottleneck', 'separable', 'plain', but is 'Plain'"
    ):
        ArchConfig.model_validate({"stages": stages, "block": "Plain"})
    for block in ({"block": "basic"}, {}):
        with pytest.raises(ValidationError, match="must not be named 'basic'"):
            ArchConfig.model_validate({"stages": stages, "block_source": {"file": "a.py", "text": ""}, **block})


def test_fields_that_a_user_block_may_use_change_the_digest() -> None:
    source = BlockSource(file="my_blocks.py", text=PLAIN)
    base = {"block": "Plain", "block_source": source}
    digests = {
        Candidate(arch=ArchConfig.model_validate({"stages": [{"blocks": 1, "channels": 8, **stage}], **base, **fields})).digest
        for stage, fields in (({}, {}), ({"skip_kernel": 3}, {}), ({}, {"expansion": 2}))
    }
    assert len(digests) == 3


def test_digests_of_built_in_blocks_are_unchanged() -> None:
    arch = {"stages": [{"blocks": 2, "channels": 32}, {"blocks": 1, "channels": 64}]}
    digests = {block: Candidate.model_validate({"arch": arch | {"block": block}}).digest for block in ("basic", "bottleneck")}
    assert digests == {"basic": "91148c8a0ae9b5ff", "bottleneck": "9c0bc25388355998"}  # of commit 5592a95


def test_a_preactivated_block_has_its_norm_after_the_last_stage() -> None:
    for preactivated in (False, True):
        text = PLAIN.replace("    def __init__", f"    preactivated = {preactivated}\n\n    def __init__")
        arch = smallest(load_space(str(write_space(text))))
        model = build_model(arch, DIGITS)
        assert isinstance(model.stem.norm, torch.nn.Identity) == preactivated
        assert isinstance(model.norm, torch.nn.BatchNorm2d) == preactivated


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("my_block.py:Plain", r"there is no file my_block\.py\. Did you mean 'my_blocks\.py'\?"),
        ("my_blocks.py:Plan", r"my_blocks\.py defines no class 'Plan'\. Did you mean 'Plain'\? Choices: Plain\."),
        ("my_blocks.py", "must name a Python file and a class of it, such as my_blocks.py:ShuffleBlock"),
        ("my_blocks.py:basic", "basic is the name of a built-in block"),
        ("my_blocks.py:Plain, my_blocks.py:Plain", "Plain names a block twice"),
        ("my_blocks.py:Plain, more/my_blocks.py:Other", r"two files are named my_blocks\.py"),
        ("3", "must name a Python file and a class of it.*but is 3"),
    ],
)
def test_an_entry_that_names_no_block_is_refused(entry: str, sentence: str) -> None:
    Path("more").mkdir()
    Path("more/my_blocks.py").write_text(PLAIN.replace("Plain", "Other"))
    with pytest.raises(ConfigError, match=rf"space\.yaml: blocks\[\d\]: {sentence}"):
        load_space(str(write_space(PLAIN, entry=entry)))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("class Plain(:", r"my_blocks\.py is not valid Python: .* \(line 1\)"),
        ("import helpers\n" + PLAIN, "imports helpers, a file beside it"),
        ("from .helpers import x\n" + PLAIN, r"imports \.helpers, a file beside it"),
    ],
)
def test_a_file_that_cannot_stand_alone_is_refused(text: str, sentence: str) -> None:
    Path("helpers.py").write_text("x = 1")
    with pytest.raises(ConfigError, match=sentence):
        load_space(str(write_space(text)))


def test_a_block_that_no_network_would_have_and_one_beside_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"Plain is not among the values of arch\.block"):
        load_space(str(write_space(PLAIN, choice="basic")))
    space = write_space(PLAIN)
    space.write_text(space.read_text() + "fit: params\n")
    with pytest.raises(ConfigError, match=r"fit: .*not for Plain"):
        load_space(str(space))
    with pytest.raises(
        ConfigError, match=r"arch\.block: must be 'basic', 'preact', 'bottleneck', 'separable', 'plain' or 'Plain'"
    ):
        load_space(str(write_space(PLAIN, choice="Plane")))


FAULTS = {
    "keeps the size at stride 2": ("3, plan.stride, 1)", "3, 1, 1)", r"\(my_blocks\.py, line 12, in forward\)"),
    "loses the border": (
        "return self.conv(x) + self.shortcut(x)",
        "return (self.conv(x) + self.shortcut(x))[:, :, 1:, 1:]",
        "has a wrong output size: at stride 1 it makes 7×7 of 8×8, and must make 8×8",
    ),
    "other channels": (
        "return self.conv(x) + self.shortcut(x)",
        "return (self.conv(x) + self.shortcut(x)).repeat(1, 2, 1, 1)",
        "makes 16 channels of 8 at stride 1, but must make plan.stage.channels, 8",
    ),
    "images mixed": (
        "return self.conv(x) + self.shortcut(x)",
        "return (self.conv(x) + self.shortcut(x))[:1]",
        "makes 1×8×8×8 of 2×8×8×8, but must keep the shape",
    ),
    "no tensor": ("return self.conv(x) + self.shortcut(x)", "return None", "returns NoneType, not a tensor"),
    "no gradient": ("return self.conv(x)", "return self.conv(x).detach()", "no gradient reaches its parameters"),
    "raises in building": (
        "super().__init__(plan)",
        "super().__init__(plan); raise ValueError('not so')",
        r"my_blocks\.py:Plain cannot be built for 8 → 8 channels, kernel 3, stride 1: ValueError: not so "
        r"\(my_blocks\.py, line 7, in __init__\)",
    ),
    "lazy layers": ("nn.Conv2d(plan.channels_in, ", "nn.LazyConv2d(", "my_blocks.py:Plain has lazy parameters"),
    "no copy": (
        "super().__init__(plan)",
        "super().__init__(plan); self.scale = 2 * next(nn.Linear(1, 1).parameters())",
        "my_blocks.py:Plain cannot be copied with copy.deepcopy, which EMA weights need: RuntimeError",
    ),
    "raises at some widths": (
        "super().__init__(plan)",
        "super().__init__(plan); assert plan.stage.channels != 16, 'not 16'",
        "cannot be built for 16 → 16 channels.*AssertionError: not 16",
    ),
    "raises in prediction": (
        "return self.conv(x)",
        "assert self.training; return self.conv(x)",
        r"fails in prediction, at stride 1, on 2×8×8×8: AssertionError.*\(my_blocks\.py, line 12, in forward\)",
    ),
    "no zero_residual": ("def zero_residual", "def zero", "my_blocks.py:Plain has no zero_residual"),
    "no block": (
        "class Plain(ResidualBlock)",
        "class Plain(nn.Module)",
        "is not a block: a block is a subclass of ResidualBlock, but this class has the bases Module",
    ),
    "raises on import": ("from torch import nn", "from torch import nn; 1 / 0", "ZeroDivisionError.*line 1"),
    "exits on import": ("from torch import nn", "from torch import nn; raise SystemExit(3)", "it calls sys.exit"),
    "needs what is not there": (
        "from torch import nn",
        "from torch import nn; import no_such_package",
        "cannot be run: ModuleNotFoundError: No module named 'no_such_package'",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_block_that_does_not_do_what_a_block_must_is_refused(fault: str) -> None:
    before, after, sentence = FAULTS[fault]
    assert PLAIN.count(before) == 1
    space = load_space(str(write_space(PLAIN.replace(before, after))))
    with pytest.raises(ConfigError, match=sentence):
        check_blocks(space)


def test_a_good_block_passes_and_leaves_the_random_numbers_alone() -> None:
    space = load_space(str(write_space(SHUFFLE, "ShuffleBlock", "my_blocks.py:ShuffleBlock")))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    check_blocks(space)
    assert torch.rand(1) == expected


def test_a_search_refuses_a_bad_block_before_it_founds_a_study(nas: Callable[..., Done]) -> None:
    before, after, _ = FAULTS["loses the border"]
    write_space(PLAIN.replace(before, after))
    done = nas(*SEARCH, "bad", "--trials", "1")
    assert done.code != 0
    assert "has a wrong output size" in done.err
    assert "Traceback" not in done.err
    assert not study_paths("bad").settings.exists()


# --------------------------------------------------------------------------------------------------------------- export


def exported(text: str) -> str:
    return standalone_source(
        "any",
        ArchConfig.model_validate(
            {"stages": [{"blocks": 1, "channels": 8}], "block": "Plain", "block_source": {"file": "my_blocks.py", "text": text}}
        ),
    )


def test_an_exported_block_keeps_its_names_to_itself(tmp_path: Path) -> None:
    """Its file has names that ours have too, renames what it imports, and runs something as a program."""
    own = (
        "from __future__ import annotations\n"
        + PLAIN.replace("make_shortcut", "make_shortcut as skip").replace("make_shortcut as skip(plan)", "skip(plan)")
        + "\n\ndef conv(x):\n    return '''several\nlines'''\n\n\nif __name__ == '__main__':\n    raise SystemExit('run')\n"
    )
    (tmp_path / "model.py").write_text(exported(own))
    program = (
        "import model; a = model.Config.of({'stages': [{'blocks': 1, 'channels': 8, 'kernel': 3, 'skip_kernel': 1}], "
        "'block': 'Plain', 'downsample': 'conv'}); stage = a.stages[0]; "
        "print(type(model.make_block(model.BlockPlan(a, stage, 4, 2, 0.0))).__name__, model.conv(1, 2, 3).kernel_size)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["Plain", "(3,", "3)"], done.stderr


@pytest.mark.parametrize(
    "line", ["import nas.models.layers as layers", "from nas.data.loader import mix_seed", "from nas.models.blocks import *"]
)
def test_an_export_that_would_need_nas_is_refused(line: str) -> None:
    with pytest.raises(ConfigError, match=f"my_blocks.py has the line {re.escape(repr(line))}".replace(" as layers", ".*")):
        exported(f"{line}\n{PLAIN}")


# ---------------------------------------------------------------------------------------------------------------- trust


def test_code_that_lies_in_no_study_is_not_run_unasked(study: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = api.open_study("tiny").runs[-1]
    card = json.loads((run.folder / "model.json").read_text())
    text = f"open({str(tmp_path / 'ran')!r}, 'w').close()\n{PLAIN}"
    card["candidate"]["arch"] |= {"block": "Plain", "block_source": {"file": "my_blocks.py", "text": text}}
    del card["hashes"]
    outside = tmp_path / "copied"
    outside.mkdir()
    (outside / "model.json").write_text(json.dumps(card))
    (outside / "model.safetensors").write_bytes((run.folder / "model.safetensors").read_bytes())
    paths = type(run.paths)(outside)
    with pytest.raises(StudyError, match=r"code, the block Plain of my_blocks\.py, and is in no study") as refused:
        load_network(paths)
    assert "NAS_TRUST_BLOCKS=1" in (refused.value.hint or "")
    assert not (tmp_path / "ran").exists()
    monkeypatch.setenv("NAS_TRUST_BLOCKS", "1")
    with pytest.raises(StudyError, match="weights of another network"):  # the code has run: it is another network's now
        load_network(paths)
    assert (tmp_path / "ran").exists()


def test_networks_of_an_ablation_are_the_study_s(study: object) -> None:
    tiny = api.open_study("tiny")
    home = tiny.paths.ablations / "block" / "runs"
    assert _is_in_study(TrialPaths(home / "base-seed-0"))
    assert _is_in_study(tiny.runs[-1].paths)
    assert not _is_in_study(TrialPaths(home.parent / "base-seed-0"))
    assert not _is_in_study(TrialPaths(home.relative_to(home.parents[3]) / "base-seed-0")), "there it is no study's"


@pytest.mark.parametrize(("limits", "counted"), [({"params": 100}, False), ({"memory": 1000}, False), ({"params": 10**9}, True)])
def test_a_network_over_budget_is_never_allocated(limits: dict[str, int], counted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    arch = ArchConfig.model_validate(
        {"stages": [{"blocks": 1, "channels": 8}], "block": "Plain", "block_source": {"file": "my_blocks.py", "text": PLAIN}}
    )
    counts = list[ArchConfig]()

    def count(arch: ArchConfig, shape: ImageShape) -> int:
        counts.append(arch)
        return 10**6

    monkeypatch.setattr("nas.budget.counts.count_macs", count)
    monkeypatch.setattr("nas.budget.check.count_macs", count)
    cost = Budget(BudgetConfig(**limits, macs=10**5), ImageShape(size=32, channels=3, classes=10)).check(arch)
    assert counts == [arch] * counted
    assert cost.macs == (10**6 if counted else None)
    assert cost.excess.get("macs") == (9.0 if counted else None)


def test_a_class_is_made_once_in_a_process() -> None:
    arch = smallest(load_space(str(write_space(PLAIN))))
    assert block_class(arch) is block_class(ArchConfig.model_validate_json(arch.model_dump_json()))


def test_settings_say_which_text_a_study_means(nas: Callable[..., Done]) -> None:
    write_space(PLAIN)
    search = (*SEARCH, "own", "--finalists", "0")
    assert nas(*search, "--trials", "1", "--timeout", "0.001").code == 130
    assert read_settings(study_paths("own")).parameters["blocks.Plain"].startswith("my_blocks.py, sha256 ")
    assert (study_paths("own").blocks / "my_blocks.py").read_text() == PLAIN
    Path("my_blocks.py").write_text(PLAIN + "# changed\n")
    done = nas(*search, "--trials", "2")
    assert done.code != 0
    assert "blocks.Plain: my_blocks.py, sha256" in done.err


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError(), RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")], ids=repr
)
def test_memory_that_runs_out_in_a_users_code_is_not_its_fault(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, blaming(None, "the block cannot be run"):
        raise error
    assert raised.value is error
