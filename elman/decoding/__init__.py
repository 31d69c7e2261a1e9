"""From what a model expects to what is written: decoding that several jobs share."""

from elman.decoding.beam import beam
from elman.decoding.sampling import Predictor, draw, sample, until
from elman.decoding.steps import Hypothesis
from elman.decoding.viterbi import k_best, viterbi

__all__ = ["Hypothesis", "Predictor", "beam", "draw", "k_best", "sample", "until", "viterbi"]
