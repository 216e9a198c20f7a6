"""Trains a chosen network on all the data, and keeps what is needed to use it."""

from nas.retrain.card import ModelCard, find_run, finished_runs, load_network, read_card
from nas.retrain.evaluation import Evaluation, read_evaluation
from nas.retrain.run import Retrained, RetrainPlan, RetrainRequest, found_presets_study, retrain, study_data

__all__ = [
    "Evaluation",
    "ModelCard",
    "RetrainPlan",
    "RetrainRequest",
    "Retrained",
    "find_run",
    "finished_runs",
    "found_presets_study",
    "load_network",
    "read_card",
    "read_evaluation",
    "retrain",
    "study_data",
]
