"""How the limits are written, and what is refused."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from nas.config import BudgetConfig, flop_word, parse_bytes, parse_count, parse_flop
from nas.errors import BudgetError, ConfigError
from tests.spaces import read, with_budget

RULE = "memory is a whole number of bytes above 0, such as 512kB, 2MB, 64KiB or 500_000"
READ: dict[Callable[[Any], float], dict[Any, float]] = {
    parse_count: {"5M": 5_000_000, "5m": 5_000_000, "300k": 300_000, "300 K": 300_000, "5_000_000": 5_000_000, "1.5M": 1_500_000}
    | {"1.005M": 1_005_000, "2G": 2_000_000_000, "0.5k": 500, "1": 1, 4096: 4096},
    parse_bytes: {"512kB": 512_000, "512KB": 512_000, "64KiB": 65_536, "2MB": 2_000_000, "1.5 MB": 1_500_000, "0.5KiB": 512}
    | {"1MiB": 2**20, "3GB": 3 * 10**9, "1GiB": 2**30, "320B": 320, "500_000": 500_000, 4096: 4096},
    parse_flop: {"2PFLOP": 2e15, "300 tflops": 3e14, "0.5P": 5e14, 1e12: 1e12, "7": 7.0},
}
REFUSED: dict[Callable[[Any], float], tuple[str, str | None, list[Any]]] = {
    parse_count: (
        "a count is a whole number above 0, such as 5M, 300k or 5_000_000",
        "for example --max-params 5M",
        ["5 apples", "0", "0M", "-3", "1.5", "", "M", "5e6", "inf", "nan", "5MM", True, [5]],
    ),
    parse_bytes: (
        RULE,
        "for example memory: 512kB; a kB is 1,000 bytes, a KiB 1,024",
        ["5 apples", "512k", "2M", "0", "0kB", "-3kB", "1.5B", "0.3KiB", "", "kB", "1e6", "inf", True, [5]],
    ),
    parse_flop: (
        "compute is a number of operations above 0, such as 2PFLOP or 300TFLOP",
        None,
        ["", "2 PB", "-1P", "0", "nan", "inf", "P", True, [5]],
    ),
}


@pytest.mark.parametrize("parse", READ)
def test_amounts_are_read(parse: Callable[[Any], float]) -> None:
    assert {text: parse(text) for text in READ[parse]} == READ[parse]


@pytest.mark.parametrize(("parse", "text"), [(parse, text) for parse, (*_, texts) in REFUSED.items() for text in texts])
def test_what_is_no_amount_is_refused(parse: Callable[[Any], float], text: Any) -> None:
    rule, hint, _ = REFUSED[parse]
    with pytest.raises(BudgetError) as refused:
        parse(text)
    assert (refused.value.message, refused.value.hint) == (f"{rule}, but got {text!r}", hint)


@pytest.mark.parametrize(("flop", "word"), [(4.2e14, "0.42PFLOP"), (1e13, "10TFLOP"), (3e9, "3GFLOP"), (25_600.0, "25600FLOP")])
def test_compute_is_written_as_one_word_that_is_read_again(flop: float, word: str) -> None:
    assert flop_word(flop) == word
    assert parse_flop(word) == pytest.approx(flop)


@pytest.mark.parametrize(
    ("budget", "limited"),
    [
        ("{params: 5M}", {"params": 5_000_000}),
        ("{macs: 50M}", {"macs": 50_000_000}),
        ("{memory: 512kB}", {"memory": 512_000}),
        ("{latency: {max_ms: 5, runtime: torch}}", {"latency": 5.0}),
        (
            "{latency: {max_ms: 2.5, runtime: onnxruntime}, macs: 50M, memory: 64KiB, ram: 256kB, flash: 1MB, params: 300k}",
            {"params": 300_000, "flash": 10**6, "ram": 256_000, "memory": 65_536, "macs": 50_000_000, "latency": 2.5},
        ),
    ],
)
def test_each_limit_stands_alone_and_all_together_cheapest_first(budget: str, limited: dict[str, float]) -> None:
    limits = read(with_budget(budget)).budget
    assert limits.limited() == limited
    assert list(limits.limited()) == list(limited)
    assert BudgetConfig.from_json(limits.to_json()) == limits


def test_limits_read_as_words() -> None:
    latency = {"max_ms": 2.5, "runtime": "torch", "device": "cuda:1", "threads": 2, "batch": 8}
    limits = BudgetConfig.model_validate({"params": "5M", "macs": "50M", "memory": "512kB", "latency": latency})
    assert limits.describe() == (
        "5,000,000 parameters, 512,000 bytes of activations, 50,000,000 MACs, 2.5 ms by torch on cuda:1, 2 threads, batch 8"
    )
    assert limits.counted().describe() == "5,000,000 parameters, 512,000 bytes of activations, 50,000,000 MACs"


EXAMPLE = "for example {max_ms: 5, runtime: torch}; runtime is one of torch, onnxruntime"
MISTAKES = {
    "no limit": (
        {},
        "budget: must have at least one limit of params, flash, ram, memory, macs, latency, for example {params: 5M}",
    ),
    "flash of apples": ({"flash": "5 apples"}, f"budget.flash: {RULE}, but got '5 apples'"),
    "no RAM at all": ({"ram": 0}, f"budget.ram: {RULE}, but got 0"),
    "memory of apples": ({"memory": "5 apples"}, f"budget.memory: {RULE}, but got '5 apples'"),
    "latency without its runtime": ({"latency": {"max_ms": 5}}, f"budget.latency: runtime is missing; {EXAMPLE}"),
    "latency without its time": ({"latency": {"runtime": "torch"}}, f"budget.latency: max_ms is missing; {EXAMPLE}"),
    "latency by two": (
        {"latency": {"max_ms": 5, "runtime": "torch", "command": "./bench {model}"}},
        f"budget.latency: runtime and command are both there, but one is needed; {EXAMPLE}",
    ),
    "command without the file": (
        {"latency": {"max_ms": 5, "command": "./bench"}},
        "budget.latency.command: must have {model} where the program reads the path of the network's file, but is './bench'",
    ),
    "command with an open quote": (
        {"latency": {"max_ms": 5, "command": "./bench '{model}"}},
        'budget.latency.command: must be a valid command line (No closing quotation), but is "./bench \'{model}"',
    ),
    "eight bits without a command": (
        {"latency": {"max_ms": 5, "runtime": "onnxruntime", "format": "onnx-int8"}},
        "budget.latency: format onnx-int8 is only for a command, because runtime onnxruntime runs in float32",
    ),
    "latency that is a number": ({"latency": 5}, f"budget.latency: must have the time and the runtime, {EXAMPLE}, but is 5"),
    "unknown runtime": (
        {"latency": {"max_ms": 5, "runtime": "tensorrt"}},
        "budget.latency.runtime: must be 'torch' or 'onnxruntime' (got 'tensorrt')",
    ),
    "no time at all": ({"latency": {"max_ms": 0, "runtime": "torch"}}, "budget.latency.max_ms: must be greater than 0 (got 0)"),
    "time that is true": ({"latency": {"max_ms": True, "runtime": "torch"}}, "budget.latency.max_ms: must be a valid number"),
    "unknown key": (
        {"latency": {"max_ms": 5, "runtim": "torch"}},
        "budget.latency: unknown key 'runtim'. Did you mean 'runtime'? Choices: max_ms, runtime, command, format, timeout, ",
    ),
    "unknown device": (
        {"latency": {"max_ms": 5, "runtime": "torch", "device": "gpu"}},
        "budget.latency.device: must be cpu, cuda, cuda:1 and so on, or mps, but is 'gpu'",
    ),
    "device that the runtime does not know": (
        {"latency": {"max_ms": 5, "runtime": "onnxruntime", "device": "mps"}},
        "budget.latency: runtime onnxruntime runs on cpu or cuda, but device is 'mps'",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_in_a_space_file_is_named_with_its_key(mistake: str) -> None:
    budget, message = MISTAKES[mistake]
    with pytest.raises(ConfigError) as refused:
        read(with_budget(json.dumps(budget).replace("Infinity", ".inf")))
    assert refused.value.message.startswith(f"my.yaml: {message}")


def test_budget_of_a_study_from_before_there_were_more_limits_is_read() -> None:
    assert BudgetConfig.from_json('{"params": 3000, "macs": null}') == BudgetConfig(params=3000)
