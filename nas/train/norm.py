"""BatchNorm's statistics, taken anew from images that may differ from those a network was trained on."""

import torch
from torch import nn

from nas.data.loader import Resident
from nas.train.device import Precision
from nas.train.evaluate import EVALUATION_BATCH, autocast

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
"""Those of nas have images' alone; a block of one's own and a known network may have any."""


@torch.no_grad()
def reestimate_norm(model: nn.Module, data: Resident, precision: Precision) -> None:
    """Sets the running mean and variance of every BatchNorm to those of `data`, averaged over its batches, and leaves all weights
    as they are. No label is used (arXiv 2006.10963, 2006.16971). Leaves the model in evaluation mode."""
    norms = [module for module in model.modules() if isinstance(module, BATCH_NORMS)]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches alike
        norm.train()
    with autocast(data.device, precision):
        for images, _ in data.batches(EVALUATION_BATCH):
            model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
