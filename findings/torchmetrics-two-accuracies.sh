#!/usr/bin/env bash
# torchmetrics 1.9.0 with torch 2.14.1: two classes of one package that are both called accuracy disagree by default.
#
# Accuracy(task="multiclass") averages over images ("micro"), and what it returns is a MulticlassAccuracy; MulticlassAccuracy made by
# its own name averages over classes ("macro"), which others call balanced accuracy. Of a classifier that always answers the larger of
# two classes (90 and 10 images) the one says 0.9 and the other 0.5. Where classes are of one size, as in CIFAR-10's test set, both
# agree, so that a test on such data does not show the difference; a stratified subset or a data set of one's own does.
#
# Output on 2026-11-29:
#   Accuracy(task="multiclass")   MulticlassAccuracy  average=micro  0.9
#   MulticlassAccuracy            MulticlassAccuracy  average=macro  0.5
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q torchmetrics==1.9.0 torch==2.14.1 setuptools
cat > accuracies.py <<'PYTHON'
import torch
from torchmetrics import Accuracy
from torchmetrics.classification import MulticlassAccuracy

targets = torch.tensor([0] * 90 + [1] * 10)
answers = torch.zeros(100, dtype=torch.long)


def told(name, metric):
    value = round(metric(answers, targets).item(), 4)
    print(f"{name:<29} {type(metric).__name__}  average={metric.average}  {value}")
    return value


by_task = told('Accuracy(task="multiclass")', Accuracy(task="multiclass", num_classes=2))
by_name = told("MulticlassAccuracy", MulticlassAccuracy(num_classes=2))
assert (by_task, by_name) == (0.9, 0.5)
PYTHON
env/bin/python accuracies.py
