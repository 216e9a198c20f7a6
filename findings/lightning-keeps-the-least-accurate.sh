#!/usr/bin/env bash
# lightning 2.6.1 with torch 2.14.1: ModelCheckpoint(monitor="val_accuracy") keeps the checkpoint with the LOWEST validation accuracy.
#
# The argument `mode` is "min" unless it is given, whatever the metric is called, and no warning says so. Keras's callback of the same
# name has "auto" there and takes the highest of what is called accuracy. A script that is carried over trains well and then tests,
# or hands in, its worst epoch.
#
# Output on 2026-11-29 (validation accuracies 0.5, 0.7, 0.9):
#   default      epoch=0.ckpt 0.5
#   mode="max"   epoch=2.ckpt 0.9
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q lightning==2.6.1 torch==2.14.1 setuptools
cat > keep.py <<'PYTHON'
import logging
import os
import warnings

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
ACCURACIES = [0.5, 0.7, 0.9]


class Network(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, index):
        return self.layer(batch[0]).mean()

    def validation_step(self, batch, index):
        self.log("val_accuracy", ACCURACIES[self.current_epoch])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def kept(**mode):
    """Score of the checkpoint that is kept, and the warnings that name the mode."""
    keeper = ModelCheckpoint(dirpath=os.path.join("kept", *mode.values()), filename="{epoch}", monitor="val_accuracy", **mode)
    data = DataLoader(TensorDataset(torch.zeros(4, 1)), batch_size=2)
    trainer = lightning.Trainer(
        max_epochs=3,
        callbacks=[keeper],
        accelerator="cpu",
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        trainer.fit(Network(), data, data)
    about_mode = [str(w.message) for w in seen if "mode" in str(w.message) and "monitor" in str(w.message)]
    return os.path.basename(keeper.best_model_path), round(float(keeper.best_model_score), 4), about_mode


name, score, said = kept()
print(f"default      {name} {score}")
best_name, best_score, _ = kept(mode="max")
print(f'mode="max"   {best_name} {best_score}')
assert (score, best_score) == (0.5, 0.9) and not said, said
PYTHON
env/bin/python keep.py
