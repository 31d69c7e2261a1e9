"""One step of a stack at a time, in one call of the engine: what streaming runs on."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._dynamo.guards import TensorGuards  # without PyTorch's compiler: its C++ alone
from torch.nn import Parameter

from elman.cells.contract import Cell
from elman.compiler.compiled import Compiled
from elman.compiler.cpu import layouts
from elman.compiler.cpu.build import runtime
from elman.compiler.cpu.kernels import SHARED_FROM, Kernel
from elman.compiler.cpu.layouts import address, packed
from elman.compiler.cpu.target import CPU
from elman.compiler.kernel import Shape, State, place
from elman.compiler.lower import decompose
from elman.compiler.memory import all_plain, plain
from elman.compiler.trace import Hoisted, trace

_STACK, _STATE = layouts.positions(layouts.Stack), layouts.positions(layouts.StackState)
_BUFFER, _PRODUCT = layouts.positions(layouts.Buffer), layouts.positions(layouts.Product)
_KEPT = layouts.positions(layouts.Kept)


class CompiledStack:
    """A stack of cells that takes one step in one call of the engine.

    Everything that a cell does, its map of the input included, is one program; the programs of
    all layers run in one call. They read the weights where they lie, so that every step is of
    today's. What a step computes from weights alone, such as the sum of two biases, is kept beside
    a copy of the weights that it is from, and the engine compares the two at every step.

    Args:
        cells: the cell of each layer.
        names: for each layer, the owner's name of each weight, by the cell's name.
        real: the type of the numbers.

    Raises:
        Unsupported: a cell has no kernel.
    """

    def __init__(
        self, cells: Sequence[Cell], names: Sequence[Mapping[str, str]], real: torch.dtype
    ):
        self._names = names
        self._flat = [name for layer in names for name in layer.values()]
        self._cells = [
            Compiled(*trace(cell, decompose, real, hoist=False), only_forward=True)
            for cell in cells
        ]
        self._shapes: list[tuple[int, ...]] = []
        for cell in cells:
            self._shapes += cell.weight_shapes().values()
            self._shapes += (tuple(b.shape) for _, b in cell.named_buffers())
        self._real = real
        self._sizes = [cell.state_sizes for cell in cells]
        self._width = cells[0].input_size
        self._addresses: list[int] = []
        self._key: Any = None
        self._lock = threading.Lock()

    def fits(self, x: Tensor, states: Sequence[Tensor]) -> bool:
        """Whether x is (B, M) or (M), and the states are those of all layers, as they should be."""
        shape, real = x.shape, x.dtype
        if len(shape) not in (1, 2) or shape[-1] != self._width or real != self._real:
            return False
        if not x.is_cpu or 0 in shape or type(x) not in (Tensor, Parameter):
            return False
        if not isinstance(states, (tuple, list)) or len(states) != len(self._sizes[0]):
            return False
        between = (len(self._sizes), *shape[:-1])
        for state, size in zip(states, self._sizes[0], strict=True):
            if not isinstance(state, Tensor) or state.dtype != real or not state.is_cpu:
                return False
            if state.shape != (*between, size):
                return False
        return True

    def run(
        self, owner: nn.Module, x: Tensor, states: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]] | None:
        """The output (B, S) and the states (layers, B, size) after reading x (B, M).

        None where the weights are not as x is, or lie in memory in another way than they were made.

        Raises:
            BuildError: the kernels cannot be built here.
        """
        held: Any = owner._parameters
        try:
            tensors = [held[name] for name in self._flat]
        except KeyError:  # a constant, or a weight that is computed from others
            tensors = [getattr(owner, name) for name in self._flat]
        # The program has one place for the addresses that it reads and writes.
        with self._lock:
            return self._run(tensors, x, states)

    def _run(
        self, tensors: list[Tensor], x: Tensor, states: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]] | None:
        batch = x.shape[0] if x.dim() == 2 else 1
        key = (batch, x.dtype, torch.get_num_threads(), torch.is_inference_mode_enabled())
        if key != self._key or not self._guards.check(*tensors):
            if not all(map(_is_plain, tensors)) or any(
                t.dtype != x.dtype and t.is_floating_point() for t in tensors
            ):
                return None
            if [tuple(t.shape) for t in tensors] != self._shapes:
                return None
            self._key = None  # should preparing end half way
            self._prepare(tensors, x, *key[:3])
            self._key = key
        addresses = list(map(Tensor.data_ptr, tensors))
        if addresses != self._addresses:
            self._find(addresses)
        x = plain(x)
        y = x.new_empty((*x.shape[:-1], self._sizes[-1][0]))
        self._call[_STACK.x], self._call[_STACK.y] = x.data_ptr(), y.data_ptr()
        states, new, first = [plain(s) for s in states], [], 0
        for state in states:
            after = torch.empty_like(state)
            new.append(after)
            self._states[first + _STATE.before] = state.data_ptr()
            self._states[first + _STATE.after] = after.data_ptr()
            first += len(_STATE)
        if self._runtime.elman_step(self._address):
            self._key = None
            return self._run(tensors, x, states)
        return y, new

    def _prepare(
        self, tensors: list[Tensor], x: Tensor, batch: int, dtype: torch.dtype, threads: int
    ) -> None:
        """Describe the programs, and compute what they read that is computed from weights."""
        self._runtime = runtime(dtype)
        alive: list[Any] = []
        given, work = iter(enumerate(tensors)), 0
        layers, inputs = array("q"), array("q")
        self._places: list[tuple[array[int], int, int]] = []
        kept: dict[int, Tensor] = {}
        with torch.no_grad():
            for k, cell in enumerate(self._cells):
                numbered = {name: next(given) for name in self._names[k]}
                weights = {name: t.detach() for name, (_, t) in numbered.items()}
                numbers = {cell.hoisted.weights[n]: i for n, (i, _) in numbered.items()}
                kernel = cell.kernel("forward", dtype, CPU)
                assert isinstance(kernel, Kernel)
                source = cell.plan.step.sequences[0]
                some = x.new_zeros(1, batch, source.width)
                computed = _sources(cell.hoisted)
                kept |= {numbers[n]: tensors[numbers[n]].detach().clone() for n in computed}
                _, parameters = cell.hoisted.run(some[0], weights)
                parameters = all_plain(p.to(dtype) for p in parameters)
                own = [numbers.get(n) for n in cell.hoisted.parameters]
                others = {i for i in own if i is not None and tensors[i].dtype != dtype}
                own = [None if i in others else i for i in own]
                in_place = {j for j, i in enumerate(own) if i is not None and kernel.reads(j)}
                # One that is its own but has to be packed is computed from itself.
                to_pack = {t.product.weight for t in kernel.products} - in_place  # type: ignore[union-attr]
                kept |= {
                    i: tensors[i].detach().clone() for j in to_pack if (i := own[j]) is not None
                }
                dummies = [x.new_zeros(batch, size) for size in self._sizes[k]]
                described = kernel.described(
                    Shape(1, batch, False, False, None, None),
                    lambda b, some=some, weights=parameters: place(b, [some], weights),  # type: ignore[misc]
                    [State(d, d.unsqueeze(0)) for d in dummies],
                    parameters,
                    in_place=in_place,
                )
                for at, buffer in enumerate(kernel.buffers):
                    if buffer.kind == "vector" and (i := own[buffer.index]) is not None:
                        position = at * len(_BUFFER) + _BUFFER.data
                        self._places.append((described.buffers, position, i))
                for at, target in enumerate(kernel.products):
                    j = target.product.weight  # type: ignore[union-attr]
                    if j in in_place:
                        position = at * len(_PRODUCT) + _PRODUCT.matrix
                        self._places.append((described.products, position, own[j]))  # type: ignore[arg-type]
                self._runtime.elman_pack(address(described.header))
                alive.append((described, parameters))
                inputs.append(kernel.number(source) if source in kernel.buffers else -1)
                layers.append(address(described.header))
                work += sum(w.numel() for w in parameters)
        shared = threads if batch * work >= SHARED_FROM * threads else 1
        copies = packed(
            layouts.Kept(now=0, then=copy.data_ptr(), bytes=copy.numel() * copy.itemsize)
            for copy in kept.values()
        )
        for at, i in enumerate(kept):
            self._places.append((copies, at * len(_KEPT) + _KEPT.now, i))
        self._states = packed([layouts.StackState(before=0, after=0)] * len(self._sizes[0]))
        call = layouts.Stack(
            layers=address(layers),
            inputs=address(inputs),
            layer_count=len(layers),
            threads=shared,
            states=address(self._states),
            state_count=len(self._sizes[0]),
            kept=address(copies),
            kept_count=len(kept),
            x=0,
            y=0,
        )
        self._call = packed([call])
        self._address = address(self._call)
        self._alive = [*alive, layers, inputs, kept, copies]
        self._addresses = []
        sizes: Any = [list(t.shape) for t in tensors]
        strides: Any = [list(t.stride()) for t in tensors]
        self._guards = TensorGuards(
            *tensors, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides
        )

    def _find(self, addresses: list[int]) -> None:
        """Note down where the weights lie now."""
        for numbers, at, weight in self._places:
            numbers[at] = addresses[weight]
        self._addresses = addresses


def _is_plain(tensor: Tensor) -> bool:
    """Whether its numbers are what its memory holds, row after row."""
    return (
        type(tensor) in (Tensor, Parameter)
        and tensor.is_cpu
        and tensor.layout == torch.strided
        and tensor.is_contiguous()
        and not tensor.is_neg()
        and tensor.numel() > 0
    )


def _sources(hoisted: Hoisted) -> set[int]:
    """The numbers of the weights that something is computed from before the step."""
    read = {number for operation in hoisted.operations for number in operation.refs()}
    return read.intersection(hoisted.weights.values())
