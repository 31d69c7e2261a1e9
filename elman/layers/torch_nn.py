"""``LSTM``, ``GRU`` and ``RNN``: ``torch.nn``'s arguments, weight names and results."""

from __future__ import annotations

import inspect
import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from elman.cells.contract import Cell
from elman.cells.gru import GRU as GRUCell
from elman.cells.gru import GRUResetBefore
from elman.cells.lstm import LSTM as LSTMCell
from elman.cells.lstm import ProjectedLSTM
from elman.cells.simple import Elman
from elman.errors import InputError
from elman.layers.recording import is_symbol, refuse_script
from elman.layers.recurrent import Recurrent

OWN = (
    "hidden_sizes", "variational", "weight_drop", "skip", "learn_initial_state", "forget_bias",
    "return_states",
)  # fmt: skip
"""The options that the drop-ins have beside ``torch.nn``'s."""

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
            ``variational``, ``weight_drop``, ``skip``, ``learn_initial_state``, ``forget_bias``,
            ``return_states``.

    Weights and biases start as in ``torch.nn``, drawn from ±1/√H, the forget gate's among them;
    the jobs of the command line start that at 1.
"""


class _PlainBase(nn.RNNBase):
    """``torch.nn.RNNBase`` as a plain module: what looks for recurrent layers finds them.

    That class keeps the weights a second time, in a list that must be made anew whenever they are
    replaced; here the list is a property of the weights.
    """

    __init__ = nn.Module.__init__
    __setattr__ = nn.Module.__setattr__  # type: ignore[assignment]
    __getstate__ = object.__getstate__
    __setstate__ = nn.Module.__setstate__
    _apply = nn.Module._apply
    _replicate_for_data_parallel = nn.Module._replicate_for_data_parallel


class _Layer(Recurrent, _PlainBase):
    """What the three have in common: from ``torch.nn``'s arguments to a cell and its stack."""

    fixed = Recurrent.fixed | {"bias", "proj_size", "reset_after", "nonlinearity"}
    mode: str
    proj_size = 0

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
        for name, value in (("bias", bias), ("batch_first", batch_first)):
            if type(value).__name__ not in ("bool", "bool_"):  # numpy's is called bool_ or bool
                raise InputError(f"{name} must be True or False, received {value!r}.")
        self._check_options(options)
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
            bidirectional=bool(bidirectional),
            batch_first=bool(batch_first),
            dropout=dropout,
            hidden_sizes=hidden_sizes,
            **options,
        )
        self.bias = bool(bias)
        if dropout and self.num_layers == 1:
            warnings.warn(
                f"dropout={dropout} acts between layers, and there is one layer only.",
                stacklevel=3,
            )

    def _check_options(self, options: dict[str, Any]) -> None:
        """Raise what is no option of this class, by its name and not by that of a base."""
        label = type(self).__name__
        if options.pop("proj_size", 0):
            raise InputError(f"{label} takes no proj_size, as in torch.nn: only LSTM does.")
        known = inspect.signature(Recurrent.__init__).parameters
        for name in options:
            if name not in known or name in ("self", "cell", "layers"):
                raise InputError(
                    f"{label} has no option {name!r}: beside torch.nn's it takes {', '.join(OWN)}."
                )

    def forward(  # type: ignore[override]
        self,
        input: Any = None,
        hx: Any = None,
        x: Any = None,
        state: Any = None,
        lengths: Any = None,
        resets: Any = None,
        return_states: str | None = None,
    ) -> Any:
        """As :meth:`elman.Recurrent.forward`; ``input`` and ``hx`` are ``torch.nn``'s names.

        All but these two are to be given by name (the exporter to ONNX gives them by position).

        Raises:
            InputError: x or the state is given twice, or x is not, or does not fit.
        """
        for ours, theirs, one, other in (("x", "input", x, input), ("state", "hx", state, hx)):
            if one is not None and other is not None and not is_symbol(one):
                raise InputError(f"{ours} and {theirs} are two names for one thing: give one.")
        return super().forward(
            input if x is None else x,
            hx if state is None else state,
            lengths=lengths,
            resets=resets,
            return_states=return_states,
        )

    # -- what torch.nn's layers show ------------------------------------------------------------

    @property
    def _all_weights(self) -> list[list[str]]:  # type: ignore[override]
        """The weights' names, a list for each layer and direction."""
        return [
            [self.weight_names(k)[name] for name in cell.weight_shapes()]
            for k, cell in enumerate(self._cells)
        ]

    @property
    def all_weights(self) -> list[list[nn.Parameter]]:
        """The weights, a list for each layer and direction, in ``torch.nn``'s order."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    @property
    def _flat_weights_names(self) -> list[str]:  # type: ignore[override]
        return [name for names in self._all_weights for name in names]

    @property
    def _flat_weights(self) -> list[Any]:  # type: ignore[override]
        return [getattr(self, name) for name in self._flat_weights_names]

    @property
    def _flat_weight_refs(self) -> list[Any]:  # type: ignore[override]
        return [weakref.ref(weight) for weight in self._flat_weights]

    def _init_flat_weights(self) -> None:
        """Do nothing: there is no second list of the weights that could be out of date."""

    _update_flat_weights = _init_flat_weights

    def __prepare_scriptable__(self) -> Any:
        """Say what to give ``torch.jit.script`` in place of this network."""
        refuse_script(self, f"load its state_dict into a torch.nn.{type(self).__name__}")


class LSTM(_Layer):
    """Long short-term memory (Hochreiter & Schmidhuber, 1997).

    i, f, o = σ(W x + U h + b)    c' = f ⊙ c + i ⊙ tanh(W x + U h + b)    h' = o ⊙ tanh(c')

    ``proj_size`` projects the output, h' = R (o ⊙ tanh(c')) (Sak et al., 2014).
    """

    mode = "LSTM"

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
        super().__init__(
            ProjectedLSTM if proj_size else LSTMCell, input_size, hidden_size, num_layers, bias,
            batch_first, dropout, bidirectional, device, dtype,
            cell_options={"proj_size": proj_size} if proj_size else None, **options,
        )  # fmt: skip
        self.proj_size = int(proj_size)

    get_expected_cell_size = nn.LSTM.get_expected_cell_size
    check_forward_args = nn.LSTM.check_forward_args  # type: ignore[assignment]
    permute_hidden = nn.LSTM.permute_hidden  # type: ignore[assignment]


class GRU(_Layer):
    """Gated recurrent unit (Cho et al., 2014).

    r, z = σ(W x + U h + b)    n = tanh(W x + b + r ⊙ (U h + b'))    h' = (1 − z) ⊙ n + z ⊙ h

    ``reset_after=False`` takes the other convention, n = tanh(W x + U (r ⊙ h) + b), whose weights
    are named differently.
    """

    mode = "GRU"

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
        super().__init__(
            GRUCell if reset_after else GRUResetBefore, input_size, hidden_size, num_layers, bias,
            batch_first, dropout, bidirectional, device, dtype, **options,
        )  # fmt: skip
        self.reset_after = reset_after


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
        super().__init__(
            Elman, input_size, hidden_size, num_layers, bias, batch_first, dropout,
            bidirectional, device, dtype, cell_options={"nonlinearity": nonlinearity}, **options,
        )  # fmt: skip
        self.nonlinearity = nonlinearity
        self.mode = f"RNN_{nonlinearity.upper()}"


for _layer in (LSTM, GRU, RNN):
    _layer.__doc__ = f"{_layer.__doc__}{_SHARED.format(name=_layer.__name__)}"
