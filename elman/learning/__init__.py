"""Learning rules: how a recurrent network gets its gradient, and what is done with it."""

from elman.learning.bptt import BPTT, TruncatedBPTT
from elman.learning.clipping import add_l1, clip_norm, clip_value
from elman.learning.decay import decaying
from elman.learning.forward import RFLO, RTRL, UORO, SnAp1, elementwise
from elman.learning.optimizers import OPTIMIZERS, check_optimizer, make_optimizer
from elman.learning.rule import LossFunction, Rule, detach
from elman.learning.schedules import SCHEDULES, EarlyStopping, Schedule

RULES: dict[str, type[Rule]] = {
    "bptt": BPTT,
    "tbptt": TruncatedBPTT,
    "rtrl": RTRL,
    "snap1": SnAp1,
    "rflo": RFLO,
    "uoro": UORO,
}
"""The learning rules by name."""

__all__ = [
    "BPTT",
    "OPTIMIZERS",
    "RFLO",
    "RTRL",
    "RULES",
    "SCHEDULES",
    "UORO",
    "EarlyStopping",
    "LossFunction",
    "Rule",
    "Schedule",
    "SnAp1",
    "TruncatedBPTT",
    "add_l1",
    "check_optimizer",
    "clip_norm",
    "clip_value",
    "decaying",
    "detach",
    "elementwise",
    "make_optimizer",
]
