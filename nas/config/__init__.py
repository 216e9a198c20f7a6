"""What a network, its training, its data and its limits are, as frozen data: JSON both ways, unknown keys refused.

This room describes; `nas.models`, `nas.train`, `nas.data` and `nas.study` construct. It knows neither torch nor Optuna.
"""

from nas.config.augment import AugmentConfig, FlipName, MixName, PadMode, PolicyName
from nas.config.budget import LIMIT_NAMES, BudgetConfig, LatencyConfig, RuntimeName, amount, parse_bytes, parse_count
from nas.config.candidate import Candidate
from nas.config.data import DataConfig, ImageShape
from nas.config.frozen import Frozen, Probability, Rate, first_problem, what_is_wrong
from nas.config.metric import METRIC_WORDS, MetricName
from nas.config.network import (
    MOST_BLOCKS,
    MOST_STAGES,
    WIDEST,
    ActivationName,
    ArchConfig,
    BlockName,
    BlockSource,
    DownsampleName,
    DropoutPlace,
    InitName,
    PoolName,
    StageConfig,
    StemConfig,
    StemName,
    StemPoolName,
)
from nas.config.study import ObjectiveName, StrategyConfig, StudyConfig
from nas.config.training import BalanceName, Epochs, OptimiserName, ScheduleName, TrainConfig, check_epochs

__all__ = [
    "LIMIT_NAMES",
    "METRIC_WORDS",
    "MOST_BLOCKS",
    "MOST_STAGES",
    "WIDEST",
    "ActivationName",
    "ArchConfig",
    "AugmentConfig",
    "BalanceName",
    "BlockName",
    "BlockSource",
    "BudgetConfig",
    "Candidate",
    "DataConfig",
    "DownsampleName",
    "DropoutPlace",
    "Epochs",
    "FlipName",
    "Frozen",
    "ImageShape",
    "InitName",
    "LatencyConfig",
    "MetricName",
    "MixName",
    "ObjectiveName",
    "OptimiserName",
    "PadMode",
    "PolicyName",
    "PoolName",
    "Probability",
    "Rate",
    "RuntimeName",
    "ScheduleName",
    "StageConfig",
    "StemConfig",
    "StemName",
    "StemPoolName",
    "StrategyConfig",
    "StudyConfig",
    "TrainConfig",
    "amount",
    "check_epochs",
    "first_problem",
    "parse_bytes",
    "parse_count",
    "what_is_wrong",
]
