#!/usr/bin/env bash
# optuna 5.0.0: a number outside its range that was enqueued is tried all the same; a choice that is none is refused.
#
# study.enqueue_trial({"width": 512}) takes what suggest_int("width", 16, 64) can not draw. The trial gets 512, with a UserWarning ("is
# out of range") from within suggest_int and nothing where it was enqueued, and the study records it beside the distribution 16 to 64; the
# same holds for a value between two steps (40 where widths are 16, 32, 48, 64). A word that is no choice of suggest_categorical ends the
# trial with a ValueError. In a search whose ranges keep networks small, starting points carried over from another study train networks
# that the space excludes, and one of them can become the study's best.
#
# Output on 2026-11-29:
#   512 in 16 to 64           512, warned when suggested: yes, when enqueued: no
#   40 in 16 to 64 step 16    40
#   "relu6" in relu, gelu     ValueError
#   best of the study         512, recorded range 16 to 64
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q optuna==5.0.0
cat > enqueue.py <<'PYTHON'
import warnings

import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))


def enqueued(parameters, suggest):
    """What a trial that begins with `parameters` gets, and how often each of the two steps warned."""
    with warnings.catch_warnings(record=True) as first:
        warnings.simplefilter("always")
        study.enqueue_trial(parameters)
    trial = study.ask()
    with warnings.catch_warnings(record=True) as second:
        warnings.simplefilter("always")
        try:
            value = suggest(trial)
        except ValueError as error:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return type(error).__name__, len(first), len(second)
    study.tell(trial, value)
    return value, len(first), len(second)


wide, at_enqueue, at_suggest = enqueued({"width": 512}, lambda t: t.suggest_int("width", 16, 64))
yes = ("no", "yes")
print(f"512 in 16 to 64           {wide}, warned when suggested: {yes[at_suggest > 0]}, when enqueued: {yes[at_enqueue > 0]}")
between, *_ = enqueued({"w": 40}, lambda t: t.suggest_int("w", 16, 64, step=16))
print(f"40 in 16 to 64 step 16    {between}")
word, *_ = enqueued({"activation": "relu6"}, lambda t: t.suggest_categorical("activation", ["relu", "gelu"]))
print(f'"relu6" in relu, gelu     {word}')
best = study.best_trial
recorded = best.distributions["width"]
print(f"best of the study         {best.params['width']}, recorded range {recorded.low} to {recorded.high}")
assert (wide, between, word) == (512, 40, "ValueError") and at_suggest and not at_enqueue
assert best.params == {"width": 512} and (recorded.low, recorded.high) == (16, 64)
PYTHON
env/bin/python enqueue.py
