"""From what a model expects to what is written: decoding that several jobs share."""

from elman.decoding.sampling import Predictor, sample, until

__all__ = ["Predictor", "sample", "until"]
