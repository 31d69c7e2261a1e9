"""Which parameters decay: the weights, and not the biases."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from elman.cells.contract import Cell
from elman.errors import InputError
from elman.layers import Recurrent

_GAINS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, _NormBase)
"""Modules whose parameters are gains and biases, whatever their shape."""


def decaying(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of ``model`` that L2 and L1 decay pull towards zero, each once.

    - Of a cell, the weights that it declares: :class:`elman.Affine`'s and :class:`elman.Linear`'s
      matrices and :class:`elman.Diagonal`'s vectors (the recurrent weights of an IndRNN,
      peepholes), save those declared with ``decay=False``, whose zero is no smaller memory (the
      logarithms in an LRU). Biases do not decay, nor do the gains of layer normalisation.
    - Of a stack, those of its cells and the matrices of its links. Initial states do not decay.
    - Of other modules, what has two axes or more: the matrices of linear layers, embeddings,
      convolutions. Biases, and the gains of PyTorch's normalisations, do not.

    Where a parametrisation stands in a weight's place, what it is computed from decays alike.

    Raises:
        InputError: ``model`` is no module.
    """
    if not isinstance(model, nn.Module):
        raise InputError(
            f"model must be a torch.nn.Module, received {type(model).__name__}: which of its "
            "parameters are weights, only the whole tells."
        )
    chosen: dict[int, nn.Parameter] = {}
    for module in model.modules():
        if not isinstance(module, ParametrizationList):  # which _of reads by what it computes
            chosen.update((id(p), p) for p in _of(module))
    return [p for p in model.parameters() if id(p) in chosen]


def _of(module: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of its own that decay."""
    declared = _declared(module)
    for name, parameter in module.named_parameters(recurse=False):
        if _decays(module, name, parameter, declared):
            yield parameter
    if is_parametrized(module):
        for name, computed in module.parametrizations.items():  # type: ignore[union-attr, operator]
            for original in computed.parameters(recurse=False):
                if _decays(module, name, original, declared):
                    yield original


def _decays(
    module: nn.Module, name: str, parameter: nn.Parameter, declared: dict[str, bool]
) -> bool:
    if name in declared:
        return declared[name]
    is_bias = name.startswith("bias") or isinstance(module, _GAINS)
    return parameter.dim() > 1 and not is_bias


def _declared(module: nn.Module) -> dict[str, bool]:
    """Of the parameters that cells declare, whether they decay, by the module's names."""
    if isinstance(module, Cell):
        return {name: name in module.decaying() for name in module.weight_shapes()}
    found: dict[str, bool] = {}
    if isinstance(module, Recurrent):
        for k, cell in enumerate(module._cells):
            names, weights = module.weight_names(k), cell.decaying()
            found.update((names[name], name in weights) for name in cell.weight_shapes())
    return found
