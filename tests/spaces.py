"""Space files for tests: a whole one, and frames around a single line."""

from nas.space.space import Space
from nas.space.space_file import read_space

WHOLE = """\
version: 1
budget: {params: 300k, macs: 50M}
arch:
  stages: {type: int, low: 2, high: 3}
  block: {type: categorical, choices: [basic, bottleneck]}
  stem:
    kernel: {type: categorical, choices: [3, 5]}
    channels: {type: categorical, choices: [null, 16]}
  stage:
    blocks: {type: int, low: 1, high: 4, log: true}
    channels:
      - {type: int, low: 16, high: 32, step: 8}
      - 32
      - {type: categorical, choices: [32, 64]}
  dropout: {type: float, low: 0.0, high: 0.2, step: 0.1}
  zero_init: {type: categorical, choices: [false, true]}
train:
  epochs: 6
  lr: {type: float, low: 1e-3, high: 0.1, log: true}
  schedule: multistep
  milestones: [0.5, 0.75]
  augment: {flip: none, rotation: {type: float, low: 0, high: 10}}
"""


def read(text: str = WHOLE) -> Space:
    return read_space(text, source="my.yaml", name="my")


def with_arch(line: str) -> str:
    return f"version: 1\nbudget: {{params: 5M}}\narch:\n  stages: 3\n  stage: {{blocks: 1, channels: 8}}\n  {line}\n"


def with_stage(line: str) -> str:
    return f"version: 1\nbudget: {{params: 5M}}\narch:\n  stages: 3\n  stage:\n    blocks: 1\n    channels: 8\n    {line}\n"


def with_train(line: str) -> str:
    return f"version: 1\nbudget: {{params: 5M}}\narch: {{stages: 3, stage: {{blocks: 1, channels: 8}}}}\ntrain:\n  {line}\n"


def with_budget(budget: str) -> str:
    return f"version: 1\nbudget: {budget}\narch: {{stages: 3, stage: {{blocks: 1, channels: 8}}}}\n"
