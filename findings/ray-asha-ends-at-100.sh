#!/usr/bin/env bash
# ray[tune] 2.60.0: with ASHAScheduler() a training of 150 epochs ends after 100 of them, and counts as completed.
#
# The scheduler's `max_t` is 100 unless it is given: whoever reaches it is stopped, the best as well. Nothing is printed about it; the
# result has no error and says done=True, as that of a training which came to its own end. A script that trains for 200 epochs with a
# rate that falls to zero at the last is cut off at half of its rate.
#
# Output on 2026-11-29, of two trainings of 150 epochs each:
#   without a scheduler          150 epochs, done True, error None
#   ASHAScheduler()              100 epochs, done True, error None
#   ASHAScheduler(max_t=150)     150 epochs, done True, error None
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q 'ray[tune]==2.60.0'
cat > train.py <<'PYTHON'
import os

os.environ["RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS"] = "0"
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

EPOCHS = 150


def train(config):
    for epoch in range(EPOCHS):
        tune.report({"accuracy": epoch / EPOCHS + config["bonus"]})


def longest(name, scheduler):
    """Epochs of the training that lasted longest; two at a time."""
    space = {"bonus": tune.grid_search([0.0, 0.1])}
    tuner = tune.Tuner(
        train,
        param_space=space,
        tune_config=tune.TuneConfig(scheduler=scheduler, metric="accuracy", mode="max"),
        run_config=tune.RunConfig(storage_path=os.getcwd(), verbose=0),
    )
    last = max(tuner.fit(), key=lambda result: result.metrics["training_iteration"])
    epochs = last.metrics["training_iteration"]
    print(f"{name:<28} {epochs} epochs, done {last.metrics['done']}, error {last.error}", flush=True)
    assert last.metrics["done"] and last.error is None
    return epochs


ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
found = [
    longest("without a scheduler", None),
    longest("ASHAScheduler()", ASHAScheduler()),
    longest("ASHAScheduler(max_t=150)", ASHAScheduler(max_t=EPOCHS)),
]
assert found == [150, 100, 150], found
PYTHON
env/bin/python train.py > output.txt 2> errors.txt || { tail -30 output.txt errors.txt >&2; exit 1; }
grep ' epochs, done ' output.txt
