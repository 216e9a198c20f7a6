"""Trains a chosen network on all the data, and keeps what is needed to use it."""

from nas.retrain.card import Hashes, ModelCard, read_card, write_card
from nas.retrain.evaluation import Evaluation, read_evaluation
from nas.retrain.network import find_run, finished_runs, is_folder, load_network, study_of
from nas.retrain.run import Retrained, RetrainPlan, RetrainRequest, found_presets_study, retrain, study_data

__all__ = [
    "Evaluation",
    "Hashes",
    "ModelCard",
    "RetrainPlan",
    "RetrainRequest",
    "Retrained",
    "find_run",
    "finished_runs",
    "found_presets_study",
    "is_folder",
    "load_network",
    "read_card",
    "read_evaluation",
    "retrain",
    "study_data",
    "study_of",
    "write_card",
]
