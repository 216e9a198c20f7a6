"""Trains a chosen network on all the data, and keeps what is needed to use it."""

from nas.retrain.card import Hashes, ModelCard, read_card, write_card
from nas.retrain.choice import CRITERIA, HOLD_OUT, Criterion, Network, Several, SeveralRequest, retrain_several
from nas.retrain.evaluation import Evaluation, interval, read_evaluation
from nas.retrain.network import find_run, finished_runs, is_folder, load_network, study_of
from nas.retrain.order import Order, RetrainRequest
from nas.retrain.run import Retrained, RetrainPlan, found_presets_study, retrain, study_data

__all__ = [
    "CRITERIA",
    "HOLD_OUT",
    "Criterion",
    "Evaluation",
    "Hashes",
    "ModelCard",
    "Network",
    "Order",
    "RetrainPlan",
    "RetrainRequest",
    "Retrained",
    "Several",
    "SeveralRequest",
    "find_run",
    "finished_runs",
    "found_presets_study",
    "interval",
    "is_folder",
    "load_network",
    "read_card",
    "read_evaluation",
    "retrain",
    "retrain_several",
    "study_data",
    "study_of",
    "write_card",
]
