"""What programs are compiled for: a target for each type of device, which registers itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from elman.compiler.kernel import Kernel
from elman.compiler.schedule import Program
from elman.errors import InputError


class BuildError(Exception):
    """Kernels cannot be built here; the message says why and what to do."""


class Product(Protocol):
    """A product of whole matrices, as of all steps at once."""

    def __call__(
        self,
        a: Tensor,
        b: Tensor,
        bias: Tensor | None = None,
        *,
        out: Tensor | None = None,
        operand: str = "",
    ) -> Tensor:
        """a b (+ bias) for a (I, K) and b (K, J), added to ``out`` where it is given.

        ``operand`` is what a and b are rounded to: see :class:`elman.compiler.kernel.Shape`.
        """


@dataclass(frozen=True, eq=False)
class Target:
    """What runs the programs of cells on one type of device.

    Attributes:
        name: what messages call it: the name of its engine. Targets that compute otherwise have
            other names, by which results of the past are told apart.
        reals: the types of number that it computes in.
        build: the kernels of programs for one type of number, by the programs' names; a
            :class:`BuildError` says why there are none.
        product: the product of two matrices.
        column_sums: the sum of the rows of (I, J).
        missing: why nothing can be built here, or None.
    """

    name: str
    reals: tuple[torch.dtype, ...]
    build: Callable[[Mapping[str, Program], torch.dtype], Mapping[str, Kernel]]
    product: Product
    column_sums: Callable[[Tensor], Tensor]
    missing: Callable[[], str | None]


_provided: dict[str, Target] = {}


def provide(device: str, target: Target) -> None:
    """Compile for a type of device, such as ``"cuda"``, by this target."""
    _provided[device] = target


def find(device: str) -> Target | None:
    """The target for a type of device, if there is one."""
    return _provided.get(device)


def of(device: torch.device) -> Target:
    """The target for a device.

    Raises:
        InputError: there is none.
    """
    found = _provided.get(device.type)
    if found is None:
        raise InputError(
            f"cells are compiled for tensors on {' and '.join(devices())}, not on {device}: move "
            "the tensors, or use elman.engine('reference')."
        )
    return found


def devices() -> tuple[str, ...]:
    """The types of device that there are targets for, in the order of their names."""
    return tuple(sorted(_provided))


@contextmanager
def replaced(device: str, target: Target) -> Iterator[None]:
    """A block in which a type of device has another target, whose kernels are its own."""
    before = _provided.get(device)
    provide(device, target)
    try:
        yield
    finally:
        if before is None:
            del _provided[device]
        else:
            provide(device, before)
