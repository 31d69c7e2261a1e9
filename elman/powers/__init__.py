"""What recurrences can do: tests of power, each with its figure."""

from elman.powers.approximation import Approximation
from elman.powers.computation import Turing
from elman.powers.dynamics import Dynamics
from elman.powers.grammar import AnBn, AnBnCn, Reber
from elman.powers.mnist import PixelMNIST
from elman.powers.power import Outcome, Power
from elman.powers.sequences import Adding, Copy, Multiplication, TemporalOrder, TwoSequence

POWERS: dict[str, type[Power]] = {
    power.name: power
    for power in (
        Reber, TwoSequence, Adding, Multiplication, TemporalOrder, Copy, AnBn, AnBnCn,
        PixelMNIST, Dynamics, Approximation, Turing,
    )
}  # fmt: skip
"""The tests by name."""

__all__ = ["POWERS", "Outcome", "Power"]
