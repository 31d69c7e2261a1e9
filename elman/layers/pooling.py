"""Pooling: the outputs of a whole sequence as one vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from elman.cells.sizes import positive
from elman.errors import InputError
from elman.layers.attention import masked_softmax
from elman.layers.sequences import mask_of

KINDS = ("last", "mean", "max", "attention")


class Pooling(nn.Module):
    """One vector of the outputs y_1 … y_T of a sequence.

    - ``last``: y_T; of a network in both directions, what each gives last: the forward half of y_T
      beside the backward half of y_1.
    - ``mean``: Σ_t y_t / T.
    - ``max``: max_t y_t, unit by unit (Collobert et al., 2011).
    - ``attention``: Σ_t a_t y_t with a = softmax_t(v · tanh(W y_t + b)) (Yang et al., 2016).

    Whatever stands past the end of a sequence has no part in it. An empty sequence gives zeros.

    Args:
        kind: ``"last"``, ``"mean"``, ``"max"`` or ``"attention"``.
        size: S, the width of an output.
        bidirectional: the first half of an output is the forward direction's, the second the
            backward's.
        device, dtype: of the weights.

    Raises:
        InputError: an argument has a value that cannot be used.
    """

    def __init__(
        self,
        kind: str,
        size: int,
        *,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        if kind not in KINDS:
            raise InputError(f"pooling must be one of {', '.join(KINDS)}, received {kind!r}.")
        if bidirectional and size % 2:
            raise InputError(f"the size of both directions must be even, received {size}.")
        self.kind, self.size, self.bidirectional = kind, positive("size", size), bidirectional
        if kind == "attention":
            self.hidden = nn.Linear(size, size, device=device, dtype=dtype)
            self.score = nn.Linear(size, 1, bias=False, device=device, dtype=dtype)

    def forward(self, y: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """The sequences (B, S) of outputs y (T, B, S).

        Args:
            y: (T, B, S).
            lengths: (B), from 0 to T; T by default.

        Raises:
            InputError: the shape or a length does not fit.
        """
        if y.dim() != 3 or y.shape[-1] != self.size:
            raise InputError(
                f"outputs must have the shape (T, B, {self.size}), received {tuple(y.shape)}."
            )
        mask = mask_of(y, lengths).unsqueeze(-1)
        y, count = torch.where(mask, y, 0), mask.sum(0)
        if not len(y):
            return y.sum(0)
        if self.kind == "mean":
            return y.sum(0) / count.clamp(min=1)
        if self.kind == "max":
            return torch.where(count > 0, y.masked_fill(~mask, -torch.inf).amax(0), 0)
        if self.kind == "attention":
            scores = self.score(torch.tanh(self.hidden(y)))
            return (masked_softmax(scores, mask, dim=0) * y).sum(0)
        final = y.take_along_dim((count - 1).clamp(min=0).unsqueeze(0), 0).squeeze(0)
        if not self.bidirectional:
            return final
        half = self.size // 2
        return torch.cat([final[:, :half], y[0, :, half:]], -1)

    def extra_repr(self) -> str:
        """Kind and size, for ``repr``."""
        return f"{self.kind!r}, {self.size}" + (", bidirectional=True" * self.bidirectional)
