"""Writes down the operations that run: what tracing a step is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import CodeType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from elman.cells.lines import running_line
from elman.compiler.ops import SHAPED, VIEWS

aten = torch.ops.aten


class Unsupported(Exception):
    """The step does something that the native engine has no kernel for; the message says what."""


@dataclass(frozen=True)
class Ref:
    """The value with this number, as an argument of an operation."""

    number: int


@dataclass(frozen=True, eq=False)
class Literal:
    """A tensor that a step made from Python numbers, as an argument of an operation."""

    tensor: Tensor

    def __repr__(self) -> str:
        return f"{self.tensor.dtype}{tuple(self.tensor.shape)}{self.tensor.tolist()}"

    def __eq__(self, other: object) -> bool:
        return repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))


def literal(value: Literal) -> Tensor:
    """The tensor itself, as the function of an operation."""
    return value.tensor


@dataclass
class Operation:
    """One aten operation.

    Attributes:
        function, args, kwargs: with :class:`Ref` for tensors.
        results: the numbers of its values.
        line: of the step that it is from, as ``file:line``.
        learns: whether a gradient goes through it. Not so where the step had switched gradients
            off, as under ``torch.no_grad()`` or by ``detach()``.
    """

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: list[int]
    line: str = ""
    learns: bool = True

    def refs(self) -> list[int]:
        """The numbers of the values that it reads."""
        return tensors_of((self.args, self.kwargs))

    def run(
        self,
        values: Mapping[int, Any],
        batch: tuple[int, int] | None = None,
        device: torch.device | None = None,
    ) -> list[Any]:
        """Compute it; with ``batch`` = (traced, real), for another size of the batch.

        What it makes, as ``torch.full`` does, lies on ``device``: by default on the CPU, where
        steps are traced.
        """
        # Sizes stand in lists: a number by itself, as the one that full fills, is no size.
        sizes = batch if batch and self.function in SHAPED else (None, None)
        args = [v if type(v) is int else _filled(v, values, sizes) for v in self.args]
        kwargs = {name: _filled(v, values, sizes) for name, v in self.kwargs.items()}
        away = device is not None and device.type != "cpu"
        if away and "device" in kwargs:
            kwargs["device"] = device
        if getattr(self.function, "sized", False):  # it has operations of its own
            kwargs["batch"] = batch
        with nullcontext() if self.learns else torch.no_grad():
            out = self.function(*args, **kwargs)
            if away and self.function is literal:
                out = out.to(device)
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

    ``decompose`` gives the operations that are to be replaced by simpler ones. With ``pure``, a
    change in place is written down as a new value, and is refused where it would reach what the
    step was given. ``steps`` are the codes whose lines are noted down; without them, all
    operations have the line that ``line`` holds.
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
        self.types: dict[int, torch.dtype] = {}
        self.graph: dict[tuple[Any, int], int] = {}  # where values stand in autograd's graph
        self._numbers: dict[Any, int] = {}
        self._storages: dict[int, set[Any]] = {}  # the values that lie in a storage
        self._given: set[int] = set()  # storages that the step was given
        self.batch = -1  # the number of rows that a step is given
        self.changed = ""  # the first line that changes a tensor in place
        self._alive: list[Tensor] = []
        self._decompose = decompose

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # PyTorch would import its compiler, which takes a second

    def number(self, tensor: Tensor, new: bool = False) -> int:
        """The number of a value; a tensor that was not computed here gets a new one."""
        # Autograd hands a tensor back as another object on the same memory, so memory it is.
        key = self._key(tensor)
        if new or key not in self._numbers:
            self._numbers[key] = len(self.shapes)
            self.shapes[self._numbers[key]] = tuple(tensor.shape)
            self.types[self._numbers[key]] = tensor.dtype
            if isinstance(key, tuple):
                self._storages.setdefault(tensor.untyped_storage().data_ptr(), set()).add(key)
            self._alive.append(tensor)
        return self._numbers[key]

    def tensor(self, number: int) -> Tensor:
        """The value with this number."""
        return self._alive[number]

    def given(self, tensor: Tensor) -> int:
        """The number of a value that the step is given, which it may not change."""
        self._given.add(tensor.untyped_storage().data_ptr())
        return self.number(tensor, new=True)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if draws(func):
            raise Unsupported(
                f"its step makes weights, or draws random numbers ({func.name()}): weights are "
                "declared as Affine, Linear or Diagonal, noise is made by zoneout or "
                "recurrent_dropout of elman.cells"
            )
        if self._pure and func._schema.is_mutable:
            return self._changed(func, args, kwargs)
        if func is aten.lift_fresh.default and self._key(args[0]) not in self._numbers:
            out = func(*args, **kwargs)
            if self.batch in out.shape:
                raise Unsupported(
                    "its step computes beside PyTorch, as NumPy does, where no gradient goes: use "
                    "torch's functions, such as torch.tanh"
                )
            self._write(literal, (Literal(out.detach().clone()),), {}, [self.number(out, new=True)])
            return out
        read = self._refs(args, kwargs)
        # A step is recorded as it is: what autograd then makes of it is PyTorch's own gradient, and
        # what is hoisted stays whole. Simpler operations are for the loop, below autograd.
        simpler = None if self._pure else self._decompose(func)
        if simpler is not None:
            try:
                with self:
                    out = simpler(*args, **kwargs)
            except Unsupported:
                raise Unsupported(f"{func.name()} has no kernel") from None
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        results = out if isinstance(out, (tuple, list)) else [out]
        if not all(isinstance(r, Tensor) or r is None for r in results):
            raise Unsupported(
                f"its step asks for a value of the data ({func.name()}): choose with torch.where"
            )
        if func is aten.detach.default:
            return out  # autograd's own, to save a value; a step's own is caught by Stops
        numbers = [-1 if r is None else self.number(r, new=func not in VIEWS) for r in results]
        self._write(func, read[0], read[1], numbers)
        return out

    def see(self, tensor: Tensor) -> int:
        """The number of a value, whose place in autograd's graph is noted."""
        number = self.number(tensor)
        if tensor.grad_fn is not None:
            self.graph.setdefault((tensor.grad_fn, tensor.output_nr), number)
        return number

    @contextmanager
    def aside(self) -> Iterator[list[Operation]]:
        """Operations that are written down in a list of their own."""
        before, steps = self.operations, self._steps
        pure, self.operations, self._pure, self._steps = self._pure, [], False, frozenset()
        try:
            with self:
                yield self.operations
        finally:
            self.operations, self._steps, self._pure = before, steps, pure

    def _refs(self, args: Any, kwargs: Any) -> Any:
        return mapped(lambda v: Ref(self.see(v)) if isinstance(v, Tensor) else v, (args, kwargs))

    def _write(self, func: Any, args: Any, kwargs: Any, numbers: list[int]) -> None:
        line = running_line(self._steps) if self._steps else self.line
        operation = Operation(func, args, kwargs, numbers, line, torch.is_grad_enabled())
        if func not in VIEWS or operation.refs() != numbers:  # a view may be all of its source
            self.operations.append(operation)

    def _changed(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An operation in place, written down as the one that makes a new value."""
        packet = getattr(aten, func._schema.name.split("::")[1].removesuffix("_"), None)
        pure = getattr(packet, func._overloadname, None)
        changed = args[0] if args and isinstance(args[0], Tensor) else None
        remedy = "compute a new one, such as z = z * 0.5 in place of z *= 0.5"
        if pure is None or pure._schema.is_mutable or changed is None:
            raise Unsupported(f"its step changes a tensor in place ({func.name()}): {remedy}")
        storage = changed.untyped_storage().data_ptr()
        if storage in self._given or len(self._storages.get(storage, ())) != 1:
            raise Unsupported(
                f"its step changes in place ({func.name()}) a tensor that shares its memory with "
                f"another: {remedy}"
            )
        self.changed = self.changed or running_line(self._steps)
        read = self._refs(args, kwargs)
        out = func(*args, **kwargs)
        self._write(pure, read[0], read[1], [self.number(out, new=True)])
        return out

    @staticmethod
    def _key(tensor: Tensor) -> Any:
        if tensor.numel() == 0 or tensor._is_zerotensor():
            return id(tensor)
        return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def tensors_of(arguments: Any) -> list[int]:
    """The numbers of the values among an operation's arguments."""
    found: list[int] = []
    mapped(lambda v: found.append(v.number) if isinstance(v, Ref) else v, arguments)
    return found


def draws(func: Any) -> bool:
    """Whether an operation draws random numbers."""
    return torch.Tag.nondeterministic_seeded in func.tags or any(
        argument.name == "generator" for argument in func._schema.arguments
    )


class Stops(TorchFunctionMode):
    """A gradient that a step stops on purpose, told from autograd's own detaching."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        data = name == "__get__" and getattr(func, "__self__", None) is Tensor.data
        if data or func in (Tensor.detach, torch.detach):
            # A copy: what is no longer the same value to autograd must not share its memory.
            with torch.no_grad():
                return args[0].clone()
        if name in ("detach_", "requires_grad_", "register_hook", "retain_grad", "__set__"):
            raise Unsupported(f"its step changes how a gradient is taken ({name})")
        return func(*args, **(kwargs or {}))


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """``tree`` with ``function`` of each of its leaves."""
    if isinstance(tree, (tuple, list)):
        return type(tree)(mapped(function, v) for v in tree)
    if isinstance(tree, dict):
        return {k: mapped(function, v) for k, v in tree.items()}
    return function(tree)
