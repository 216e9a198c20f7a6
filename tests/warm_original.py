"""What the process that workers in tests are copies of imports and does beforehand; see tests/warm.py. Nobody else imports it."""

import torch

from nas import device  # noqa: F401
from nas.data import datasets, splits, stream  # noqa: F401
from nas.jobs import local
from nas.jobs.worker import warm_up
from nas.train import loop  # noqa: F401

torch.set_num_threads(1)
warm_up()
local.die_with = lambda parent: None  # its parent is that original, and not who works with it
