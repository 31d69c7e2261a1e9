"""Networks under PyTorch's recorders of programs: ``torch.jit.trace``, ``torch.fx``, exporters."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from elman.cells.contract import Cell
from elman.compiler.modes import unrecorded
from elman.engines import native
from elman.errors import InputError


@contextmanager
def recording(cells: Iterable[Cell], like: Tensor) -> Iterator[None]:
    """A block that ``torch.jit.trace`` records: cells are compiled before, and no part of it.

    They are compiled for numbers of the type of ``like`` and for its device.

    Where a shape decides what is said or computed, the engines see to it that the program is right
    for other shapes, or refuses them; so PyTorch's warnings of that are kept from the user.
    """
    with unrecorded():
        native.know_all(cells, like.dtype, like.device.type)
    with warnings.catch_warnings():
        for library in ("elman", "torch"):
            warnings.filterwarnings("ignore", category=torch.jit.TracerWarning, module=library)
        yield


def is_symbol(x: Any) -> bool:
    """Whether x is a value of ``torch.fx``, which stands for a tensor that is not there."""
    return isinstance(x, torch.fx.Proxy)


def leaf(network: nn.Module, x: Any, state: Any, options: dict[str, Any]) -> Any:
    """The call of a network as one node of the graph that ``torch.fx`` makes of its parent.

    Raises:
        InputError: the network itself was to be traced.
    """
    target = x.tracer.path_of_module(network)
    if not target:
        raise InputError(
            f"torch.fx keeps {type(network).__name__} as one node of the graph of its parent: "
            "trace the module that holds it."
        )
    given = {name: value for name, value in options.items() if value is not None}
    return x.tracer.create_proxy("call_module", target, (x, state), given)


def refuse_script(network: nn.Module, how: str) -> NoReturn:
    """Say why ``torch.jit.script`` cannot read a network, and what to do in its place.

    Raises:
        InputError: always.
    """
    raise InputError(
        f"torch.jit.script, which PyTorch no longer develops, cannot read {type(network).__name__}:"
        f" {how}, or use torch.export or torch.jit.trace."
    )
