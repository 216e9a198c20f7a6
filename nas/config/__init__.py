"""What a network, its training, its data and its limits are, as immutable objects, read from and written
to JSON. Unknown keys are refused.

This package only describes; `nas.models`, `nas.train`, `nas.data` and `nas.study` construct. It knows neither torch nor Optuna.
"""

from nas.config.budget import (
    CHANNEL_BLOCK,
    LIMIT_NAMES,
    BudgetConfig,
    LatencyConfig,
    RuntimeName,
    amount,
    flop_word,
    parse_bytes,
    parse_count,
    parse_flop,
)
from nas.config.frozen import Frozen, Probability, Rate, first_problem, what_is_wrong
from nas.config.network import (
    MOST_BLOCKS,
    MOST_STAGES,
    WHITENING_PATCH,
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
from nas.config.study import (
    METRIC_WORDS,
    ChannelsName,
    DataConfig,
    ImageShape,
    MetricName,
    ObjectiveName,
    ResizeName,
    StrategyConfig,
    StudyConfig,
)
from nas.config.training import (
    ADAMS,
    MUON_STEPS,
    AugmentConfig,
    BalanceName,
    Candidate,
    Epochs,
    FlipName,
    MixName,
    OptimiserName,
    PadMode,
    PolicyName,
    ScheduleName,
    TrainConfig,
    check_epochs,
    default_crop_padding,
    share_of,
    training_flop,
)
