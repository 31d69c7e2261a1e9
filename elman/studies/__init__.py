"""Studies of what recurrences can do, each with its measure."""

from elman.studies.approximation import Approximation
from elman.studies.counting import AnBn, AnBnCn
from elman.studies.dynamics import Dynamics
from elman.studies.function_approximation import FunctionApproximation
from elman.studies.grammar import Reber
from elman.studies.long_lags import Adding, Copy, Multiplication, TemporalOrder, TwoSequence
from elman.studies.pixel_mnist import PixelMNIST
from elman.studies.study import Outcome, Study
from elman.studies.trained import TrainedStudy
from elman.studies.turing import Turing

STUDIES: dict[str, type[Study] | type[TrainedStudy]] = {
    study.name: study
    for study in (
        Reber, TwoSequence, Adding, Multiplication, TemporalOrder, Copy, AnBn, AnBnCn,
        PixelMNIST, Dynamics, Approximation, FunctionApproximation, Turing,
    )
}  # fmt: skip
"""The studies by name."""

__all__ = ["STUDIES", "Outcome", "Study", "TrainedStudy"]
