"""Learning rules: how a recurrent network gets its gradient, and what is done with it."""

from elman.learning.bptt import BPTT, TruncatedBPTT, detach
from elman.learning.clipping import add_l1, clip_norm, clip_value
from elman.learning.optimizers import OPTIMIZERS, check_optimizer, make_optimizer
from elman.learning.schedules import SCHEDULES, EarlyStopping, Schedule

__all__ = [
    "BPTT",
    "OPTIMIZERS",
    "SCHEDULES",
    "EarlyStopping",
    "Schedule",
    "TruncatedBPTT",
    "add_l1",
    "check_optimizer",
    "clip_norm",
    "clip_value",
    "detach",
    "make_optimizer",
]
