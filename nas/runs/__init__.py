"""Trains chosen networks on all the data, and keeps what is needed to use them.

A command opens a workshop: the study, its images, those of them that train, and where that is computed. Each network and seed is
an order, whose folder is held while it is trained: by `run` in this process or in several together, by `queue` over the workers
of a search. `finish` takes the network from the checkpoint, judges it, and writes its weights, its card, and its row in the
ledger. Among several networks `choice` takes the one that scores best on images that were held out, and opens the official test
set for that one alone.
"""

from nas.runs.card import ModelCard, read_card, write_card
from nas.runs.choice import CRITERIA, HOLD_OUT, Criterion, Network, Several, SeveralRequest, retrain_several
from nas.runs.evaluation import Evaluation, read_evaluation
from nas.runs.load import find_run, finished_runs, is_folder, load_network, study_of
from nas.runs.order import Order
from nas.runs.presets_study import found_presets_study
from nas.runs.request import RetrainRequest
from nas.runs.retrain import Retrained, RetrainPlan, retrain
from nas.runs.workshop import study_data

__all__ = [
    "CRITERIA",
    "HOLD_OUT",
    "Criterion",
    "Evaluation",
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
