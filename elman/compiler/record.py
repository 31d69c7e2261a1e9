"""Writes down the operations that run: what tracing a step is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from elman.cells.lines import running_line

aten = torch.ops.aten

VIEWS = frozenset(
    {
        aten.split.Tensor, aten.split_with_sizes.default, aten.slice.Tensor, aten.t.default,
        aten.permute.default, aten.transpose.int, aten.view.default, aten.unsqueeze.default,
        aten.squeeze.dim, aten.expand.default, aten.alias.default,
        aten._unsafe_view.default, aten.unbind.int, aten.select.int, aten.narrow.default,
        aten.to.dtype,  # of the type that it has: otherwise it has no kernel
    }
)  # fmt: skip
"""Operations that move no data: the loop reads through them, so they are never hoisted."""


WHOLE = frozenset({aten.native_layer_norm.default, aten._softmax.default})
"""Operations that are not made of simpler ones where PyTorch computes them, before the loop."""


SHAPED = frozenset(
    {
        aten.view.default, aten._unsafe_view.default, aten.expand.default, aten.full.default,
        aten.zeros.default, aten.ones.default, aten.empty.memory_format, aten.new_full.default,
        aten.new_zeros.default, aten.new_ones.default, aten.new_empty.default,
    }
)  # fmt: skip
"""Operations whose numbers are sizes, the batch's among them."""


class Unsupported(Exception):
    """The step does something that the native engine has no kernel for; the message says what."""


@dataclass(frozen=True)
class Ref:
    """The value with this number, as an argument of an operation."""

    number: int


@dataclass
class Operation:
    """One aten operation.

    Its function, its arguments with :class:`Ref` for tensors, its values, and the line of the
    step that it is from, as ``file:line``.
    """

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: list[int]
    line: str = ""

    def refs(self) -> list[int]:
        """The numbers of the values that it reads."""
        found: list[int] = []
        mapped(
            lambda v: found.append(v.number) if isinstance(v, Ref) else v, (self.args, self.kwargs)
        )
        return found

    def run(self, values: Mapping[int, Any], batch: tuple[int, int] | None = None) -> list[Any]:
        """Compute it; with ``batch`` = (traced, real), for another size of the batch."""

        sizes = batch if batch and self.function in SHAPED else (None, None)
        args = [_filled(v, values, sizes) for v in self.args]
        kwargs = {name: _filled(v, values, sizes) for name, v in self.kwargs.items()}
        out = self.function(*args, **kwargs)
        return list(out) if isinstance(out, (tuple, list)) else [out]


def _filled(argument: Any, values: Mapping[int, Any], sizes: tuple[Any, Any]) -> Any:
    """An argument with values for their numbers and the real size for the traced one."""
    # Not a function within another: one that calls itself would keep the values alive for long.
    kind = type(argument)
    if kind is Ref:
        return values[argument.number]
    if kind is tuple or kind is list:
        return kind(_filled(v, values, sizes) for v in argument)
    return sizes[1] if kind is int and argument == sizes[0] else argument


class Recorder(TorchDispatchMode):
    """Writes down the operations that run under it.

    ``decompose`` gives the operations that are to be replaced by simpler ones. With ``pure``,
    an operation that changes a tensor is refused. ``steps`` are the codes whose lines are noted
    down; without them, all operations have the line that ``line`` holds.
    """

    def __init__(
        self,
        decompose: Callable[[Any], Callable[..., Any] | None],
        *,
        pure: bool,
        steps: frozenset[CodeType] = frozenset(),
    ):
        super().__init__()
        self._pure, self._steps, self.line = pure, steps, ""
        self.operations: list[Operation] = []
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.masks: set[int] = set()  # what is true or false
        self.loop: set[int] = set()  # what changes from step to step with the states
        self._numbers: dict[Any, int] = {}
        self._alive: list[Tensor] = []
        self._decompose = decompose

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # PyTorch would import its compiler, which takes a second

    def number(self, tensor: Tensor, new: bool = False) -> int:
        """The number of a value; a tensor that was not computed here gets a new one."""
        # Autograd hands a tensor back as another object on the same memory, so memory it is.
        key: Any = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if tensor.numel() == 0:
            key = id(tensor)
        if new or key not in self._numbers:
            self._numbers[key] = len(self.shapes)
            self.shapes[self._numbers[key]] = tuple(tensor.shape)
            if tensor.dtype == torch.bool:
                self.masks.add(self._numbers[key])
            self._alive.append(tensor)
        return self._numbers[key]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._pure and func._schema.is_mutable:
            raise Unsupported(
                f"its step changes a tensor in place ({func.name()}): compute a new one"
            )
        if self._pure and func is aten._to_copy.default and "dtype" in kwargs:
            raise Unsupported(f"its step turns a value into {kwargs['dtype']}")
        simpler = None if func in WHOLE and self._is_hoisted(args) else self._decompose(func)
        if simpler is not None:
            # PyTorch's own way of writing an operation may change what it has just made.
            pure, self._pure = self._pure, False
            try:
                with self:
                    out = simpler(*args, **kwargs)
            except Unsupported:
                raise Unsupported(f"{func.name()} has no kernel") from None
            finally:
                self._pure = pure
            if out is not NotImplemented:
                return out
        if self._steps and func.namespace == "prims":  # a decomposition without a gradient
            raise Unsupported(f"{func.name()} has no kernel")
        refs = mapped(lambda v: Ref(self.number(v)) if isinstance(v, Tensor) else v, (args, kwargs))
        out = func(*args, **kwargs)
        results = out if isinstance(out, (tuple, list)) else [out]
        if not all(isinstance(r, Tensor) or r is None for r in results):
            raise Unsupported(
                f"its step asks for a value of the data ({func.name()}): choose with torch.where"
            )
        if func is aten.detach.default:
            return out  # autograd's own, to save a value; a step's own is caught by NoDetach
        numbers = [-1 if r is None else self.number(r, new=func not in VIEWS) for r in results]
        line = running_line(self._steps) if self._steps else self.line
        operation = Operation(func, refs[0], refs[1], numbers, line)
        if self.loop.intersection(operation.refs()):
            self.loop.update(numbers)
        if func not in VIEWS or operation.refs() != numbers:  # a view may be all of its source
            self.operations.append(operation)
        return out

    def _is_hoisted(self, args: Any) -> bool:
        return bool(self.loop) and not any(
            isinstance(v, Tensor) and self.number(v) in self.loop for v in args
        )


class NoDetach(TorchFunctionMode):
    """A gradient that a step stops on purpose would be lost among autograd's own detaching."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (Tensor.detach, torch.detach, Tensor.detach_):
            raise Unsupported("its step detaches a value")
        return func(*args, **(kwargs or {}))


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """``tree`` with ``function`` of each of its leaves."""
    if isinstance(tree, (tuple, list)):
        return type(tree)(mapped(function, v) for v in tree)
    if isinstance(tree, dict):
        return {k: mapped(function, v) for k, v in tree.items()}
    return function(tree)
