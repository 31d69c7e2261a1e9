"""``LSTM``, ``GRU`` and ``RNN``: ``torch.nn``'s arguments, weight names and results."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from elman.cells.contract import Cell
from elman.cells.gru import GRU as GRUCell
from elman.cells.gru import GRUResetBefore
from elman.cells.lstm import LSTM as LSTMCell
from elman.cells.lstm import ProjectedLSTM
from elman.cells.simple import Elman
from elman.errors import InputError
from elman.layers.recurrent import Recurrent

_SHARED = """
    Takes ``torch.nn.{name}``'s arguments, has its weight names, loads its ``state_dict`` and gives
    its results; beside them everything that :class:`elman.Recurrent` does.

    Args:
        input_size: M, the width of the input.
        hidden_size: H, the number of units; may be left out where ``hidden_sizes`` is given.
        num_layers: how many layers.
        bias: whether the maps have biases (two each, as in ``torch.nn``).
        batch_first, dropout, bidirectional: as in :class:`elman.Recurrent`.
        device, dtype: of the weights.
        options: the keyword options of :class:`elman.Recurrent`: ``hidden_sizes``,
            ``variational``, ``skip``, ``learn_initial_state``, ``forget_bias``,
            ``return_states``.

    Weights and biases start as in ``torch.nn``, drawn from ±1/√H, the forget gate's among them;
    the jobs of the command line start that at 1.
"""


class _Layer(Recurrent):
    """What the three have in common: from ``torch.nn``'s arguments to a cell and its stack."""

    fixed = Recurrent.fixed | {"bias", "proj_size", "reset_after", "nonlinearity"}

    def __init__(
        self,
        cell: type[Cell],
        input_size: int,
        hidden_size: int | None,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        hidden_sizes: Sequence[int] | None = None,
        cell_options: dict[str, Any] | None = None,
        **options: Any,
    ):
        if hidden_sizes is not None:
            sizes = list(hidden_sizes) if isinstance(hidden_sizes, Sequence) else []
            if hidden_size is not None or num_layers not in (1, len(sizes)):
                raise InputError(
                    "hidden_sizes gives the width of every layer: "
                    "leave out hidden_size and num_layers beside it."
                )
            hidden_size = sizes[0] if sizes else 1
        elif hidden_size is None:
            raise InputError("hidden_size is missing: give it, or hidden_sizes=[…].")
        first = cell(
            input_size,
            hidden_size,
            biases=2 if bias else 0,
            device=device,
            dtype=dtype,
            **(cell_options or {}),
        )
        super().__init__(
            first,
            num_layers,
            bidirectional=bidirectional,
            batch_first=batch_first,
            dropout=dropout,
            hidden_sizes=hidden_sizes,
            **options,
        )
        self.bias = bias
        if dropout and self.num_layers == 1:
            warnings.warn(
                f"dropout={dropout} acts between layers, and there is one layer only.",
                stacklevel=3,
            )

    def forward(self, x: Any, state: Any = None, *, hx: Any = None, **options: Any) -> Any:
        """As :meth:`elman.Recurrent.forward`; ``hx`` is ``torch.nn``'s name for the state."""
        return super().forward(x, state if hx is None else hx, **options)


class LSTM(_Layer):
    """Long short-term memory (Hochreiter & Schmidhuber, 1997).

    i, f, o = σ(W x + U h + b)    c' = f ⊙ c + i ⊙ tanh(W x + U h + b)    h' = o ⊙ tanh(c')

    ``proj_size`` projects the output, h' = R (o ⊙ tanh(c')) (Sak et al., 2014).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int | None = None,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ):
        self.proj_size = proj_size
        super().__init__(
            ProjectedLSTM if proj_size else LSTMCell, input_size, hidden_size, num_layers, bias,
            batch_first, dropout, bidirectional, device, dtype,
            cell_options={"proj_size": proj_size} if proj_size else None, **options,
        )  # fmt: skip


class GRU(_Layer):
    """Gated recurrent unit (Cho et al., 2014).

    r, z = σ(W x + U h + b)    n = tanh(W x + b + r ⊙ (U h + b'))    h' = (1 − z) ⊙ n + z ⊙ h

    ``reset_after=False`` takes the other convention, n = tanh(W x + U (r ⊙ h) + b), whose weights
    are named differently.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int | None = None,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        reset_after: bool = True,
        **options: Any,
    ):
        self.reset_after = reset_after
        super().__init__(
            GRUCell if reset_after else GRUResetBefore, input_size, hidden_size, num_layers, bias,
            batch_first, dropout, bidirectional, device, dtype, **options,
        )  # fmt: skip


class RNN(_Layer):
    """The simple recurrent network (Elman, 1990).

    h' = φ(W x + U h + b), with φ = ``nonlinearity``: ``"tanh"``, ``"relu"`` or ``"sigmoid"``.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int | None = None,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ):
        self.nonlinearity = nonlinearity
        super().__init__(
            Elman, input_size, hidden_size, num_layers, bias, batch_first, dropout,
            bidirectional, device, dtype, cell_options={"nonlinearity": nonlinearity}, **options,
        )  # fmt: skip


for _layer in (LSTM, GRU, RNN):
    _layer.__doc__ = f"{_layer.__doc__}{_SHARED.format(name=_layer.__name__)}"
