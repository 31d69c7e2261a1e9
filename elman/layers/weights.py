"""The weights of a network: drawn anew, dropped while it learns, computed by hooks from others."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.nn.utils import parametrize

from elman.cells.contract import Cell
from elman.errors import InputError


def dropped(
    cell: Cell, weights: Mapping[str, Tensor], p: float, training: bool
) -> Mapping[str, Tensor]:
    """The weights of a cell for one run over a sequence: DropConnect (Wan et al., 2013) on U.

    m ⊙ U / (1 − p) in place of each matrix U that multiplies a state, with every entry of m drawn
    once for all steps and rows of the run: 0 with probability p, else 1. That is AWD-LSTM's weight
    drop (Merity, Keskar & Socher, 2018), which changes what any engine is given and no engine.

    Args:
        cell: whose weights they are.
        weights: by the cell's own names.
        p: the probability that an entry is missing.
        training: nothing is dropped otherwise.
    """
    if not training or p == 0:
        return weights
    matrices = cell.state_matrices()
    return {n: dropout(w, p) if n in matrices else w for n, w in weights.items()}


def check_state_matrices(cell: Cell) -> None:
    """Refuse a cell that :func:`dropped` would leave as it is.

    Raises:
        InputError: none of its matrices multiplies a state.
    """
    if not cell.state_matrices():
        raise InputError(
            f"weight_drop drops entries of the matrices that multiply a state, and "
            f"{type(cell).__name__} has none: leave it out, or choose another cell."
        )


def redraw(
    network: nn.Module, cell: Cell, names: Mapping[str, str], forget_bias: float | None
) -> None:
    """Give a network the weights that a new cell of this kind would start with.

    Args:
        network: the owner of the weights.
        cell: the cell that draws.
        names: the network's name for each weight and constant of the cell.
        forget_bias: what the bias of the blocks called ``f`` starts at, if it is given.

    Raises:
        InputError: a weight is computed from others, and it cannot be told from which values.
    """
    given = {name: getattr(network, own) for name, own in names.items()}
    drawn = {name: nn.Parameter(torch.empty_like(given[name])) for name in cell.weight_shapes()}
    bound = cell.bind(given | drawn)
    bound.reset_parameters()
    if forget_bias is not None:
        bound.fill_bias("f", forget_bias)
    for name, value in drawn.items():
        _put(network, names[name], value.detach())


def _put(network: nn.Module, name: str, value: Tensor) -> None:
    """Make ``value`` the weight of that name, whether it is held or computed."""
    for held in (name, f"{name}_orig"):  # where torch.nn.utils.prune keeps it
        parameter = network._parameters.get(held)
        if parameter is not None:
            parameter.copy_(value)
            return
    why = "no parametrization computes it"
    if parametrize.is_parametrized(network, name):
        try:
            setattr(network, name, value)
            return
        except (NotImplementedError, RuntimeError) as error:  # it has no way back, or a wrong one
            why = str(error).splitlines()[0]
    raise InputError(
        f"{name} cannot be drawn anew, because it is computed from other parameters ({why}): call "
        "reset_parameters before that is set up."
    )


def compute(network: nn.Module) -> None:
    """Compute the weights that the hooks of ``torch.nn.utils`` compute before each forward.

    A step of a stream is no forward, so that they would be those of the last one.
    """
    for hook in network._forward_pre_hooks.values():
        kind = type(hook)
        # By name, because most programs never import what prunes.
        known = [("weight_norm", "WeightNorm"), ("spectral_norm", "SpectralNorm"),
                 ("prune", "BasePruningMethod")]  # fmt: skip
        for module, base in known:
            holder = sys.modules.get(f"torch.nn.utils.{module}")
            if holder is not None and issubclass(kind, getattr(holder, base)):
                hook(network, ())
