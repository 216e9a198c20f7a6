#!/usr/bin/env bash
# datasets 5.2.0 with pyarrow 26.0.1: cast() to a ClassLabel whose names stand in another order keeps the integers, so that every cat
# becomes a dog, without an error or a warning.
#
# concatenate_datasets() refuses two sets whose class names are ordered differently ("The features can't be aligned"). What one does
# then, `second.cast(first.features)`, makes them fit and changes what the labels mean. align_labels_with_mapping() is the function
# that changes the integers and keeps the names.
#
# Output on 2026-11-29, of a set with the labels dog, cat:
#   concatenate_datasets         ValueError
#   cast                         cat, dog
#   align_labels_with_mapping    dog, cat
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install -q datasets==5.2.0 pyarrow==26.0.1
export HF_HUB_OFFLINE=1 HF_HOME="$folder/home" HF_DATASETS_DISABLE_PROGRESS_BARS=1
cat > labels.py <<'PYTHON'
import warnings

from datasets import ClassLabel, Dataset, Features, concatenate_datasets


def labelled(*names):
    """Two rows with the labels 0 and 1."""
    return Dataset.from_dict({"label": [0, 1]}, features=Features({"label": ClassLabel(names=list(names))}))


def words(dataset):
    return [dataset.features["label"].int2str(label) for label in dataset["label"]]


first, second = labelled("cat", "dog"), labelled("dog", "cat")
assert words(second) == ["dog", "cat"]
try:
    concatenate_datasets([first, second])
    refused = "no error"
except ValueError as error:
    refused = type(error).__name__
print(f"{'concatenate_datasets':<28} {refused}")
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    cast = second.cast(first.features)
print(f"{'cast':<28} {', '.join(words(cast))}")
aligned = second.align_labels_with_mapping({"cat": 0, "dog": 1}, "label")
print(f"{'align_labels_with_mapping':<28} {', '.join(words(aligned))}")
assert refused == "ValueError" and words(cast) == ["cat", "dog"] and words(aligned) == ["dog", "cat"] and not seen, seen
PYTHON
env/bin/python labels.py
