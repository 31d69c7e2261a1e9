"""One program of a cell, compiled, and one run of it in memory."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elman.compiler.cpu.build import runtime
from elman.compiler.ir import Buffer
from elman.compiler.memory import plain, resolved
from elman.compiler.modes import profiled
from elman.compiler.schedule import Program

FIXED, BEFORE, AFTER = 0, 1, 2

BUFFER, PRODUCT, MATRIX = 5, 6, 4
"""How many numbers a buffer and a product are in runtime/program.hpp, and where a matrix stands."""

SHARED_FROM = 50_000
"""Multiplications a step, for each thread, from which threads share it."""


@dataclass
class State:
    """A state of a program: see ``struct State`` in runtime/program.hpp."""

    first: Tensor
    history: Tensor
    last: Tensor | None = None
    again: Tensor | None = None
    added: Tensor | None = None
    again_out: Tensor | None = None
    past: bool = False


@dataclass(frozen=True)
class Shape:
    """How a program runs: steps, batch, direction, and where sequences end or start anew."""

    steps: int
    batch: int
    reverse: bool
    backward: bool
    resets: Tensor | None
    lengths: Tensor | None


@dataclass
class Description:
    """A program in memory: see runtime/program.hpp for what the numbers are.

    Attributes:
        header: ``struct Program``.
        buffers: its buffers, ``BUFFER`` numbers each, the address first.
        products: its products, ``PRODUCT`` numbers each, the matrix's address at ``MATRIX``.
        alive: the tensors and numbers that it points to.
    """

    header: array[int]
    buffers: array[int]
    products: array[int]
    alive: list[Any]

    @property
    def address(self) -> ctypes.c_void_p:
        """Where the program is."""
        return ctypes.c_void_p(pointer_to(self.header))


class Kernel:
    """One program for one type of number."""

    def __init__(self, name: str, program: Program, real: torch.dtype, cell: ctypes.CDLL):
        self.program, self.real = program, real
        self.runtime = runtime(real)
        self.buffers = program.buffers
        self._number = {buffer: k for k, buffer in enumerate(self.buffers)}
        self.products = program.products
        self._functions = array("q")
        self._slots: list[array[int]] = []
        for k, function in enumerate(program.functions):
            numbers = array("q", [self._number[program.resolve(b)] for b, _ in function.slots])
            offsets = array("q", [offset for _, offset in function.slots])
            self._slots += [numbers, offsets]
            address = ctypes.cast(getattr(cell, f"{name}_{k}"), ctypes.c_void_p).value
            self._functions.extend(
                [
                    address or 0,
                    function.width,
                    bool(function.reductions),
                    len(numbers),
                    pointer_to(numbers),
                    pointer_to(offsets),
                ]
            )
        self._stages = array("q")
        first = [0, 0]
        for products, functions in program.stages:
            self._stages.extend([first[0], len(products), first[1], len(functions)])
            first = [first[0] + len(products), first[1] + len(functions)]
        lanes = self.runtime.elman_vector_bytes() // real.itemsize
        self._rounded = [-(-b.width // lanes) * lanes for b in self.buffers]

    def run(
        self,
        shape: Shape,
        where: Callable[[Buffer], Tensor | tuple[int, int]],
        states: Sequence[State],
        weights: Sequence[Tensor],
    ) -> None:
        """Run the program; for the arguments see :meth:`described`."""
        described = self.described(shape, where, states, weights)
        with profiled("elman::steps"):
            self.runtime.elman_run(described.address)

    def described(
        self,
        shape: Shape,
        where: Callable[[Buffer], Tensor | tuple[int, int]],
        states: Sequence[State],
        weights: Sequence[Tensor],
        in_place: Collection[int] = (),
    ) -> Description:
        """The program in memory, as the engine reads it.

        Args:
            shape: see :class:`Shape`.
            where: for each buffer its tensor, (T, B, width), (B, width) or (width,), or (BEFORE
                or AFTER, the number of the state), or (FIXED, 0) for one that nobody else reads.
            states: what goes from step to step.
            weights: the matrices, by number.
            in_place: which of them are read where they lie, and not packed: see :meth:`reads`.
        """
        steps, batch = shape.steps, shape.batch
        resets = None if shape.resets is None else plain(shape.resets.to(torch.bool))
        lengths = None if shape.lengths is None else plain(shape.lengths.to(torch.int64))
        alive: list[Any] = [weights, states, resets, lengths]
        fields: list[int] = []
        private, used = [], 0  # buffers that nobody else reads, and how far into their space
        for buffer, rounded in zip(self.buffers, self._rounded, strict=True):
            place = where(buffer)
            if isinstance(place, Tensor):
                alive.append(place)
                step, row = (0, 0, *place.stride())[-3:-1]
                fields += (place.data_ptr(), step, row, FIXED, 0)
            elif place[0] == FIXED:
                private.append(len(fields))
                fields += (used, 0, rounded, FIXED, 0)
                used += rounded * batch * self.real.itemsize
            else:
                fields += (0, 0, states[place[1]].first.shape[-1], *place)
        # Rows past their end go through products though no function has written them.
        made = torch.empty if lengths is None else torch.zeros
        space = made(used // self.real.itemsize, dtype=self.real)
        alive.append(space)
        at = space.data_ptr()
        for k in private:
            fields[k] += at
        buffers = array("q", fields)
        threads = torch.get_num_threads()
        products, work = self._pack(weights, threads, alive, in_place)
        fields = []
        for state in states:
            present = torch.empty_like(state.first)
            alive.append(present)
            pointers = (
                state.first, state.again, state.history, present, state.last, state.added,
                state.again_out,
            )  # fmt: skip
            fields += [0 if p is None else p.data_ptr() for p in pointers]
            fields += (state.first.shape[-1], state.history.shape[0], state.past)
        numbers = array("q", fields)
        header = array(
            "q",
            [
                steps,
                batch,
                threads,
                shape.reverse,
                shape.backward,
                0 if resets is None else resets.data_ptr(),
                0 if lengths is None else lengths.data_ptr(),
                pointer_to(numbers),
                len(states),
                pointer_to(buffers),
                len(self.buffers),
                pointer_to(products),
                pointer_to(self._functions),
                pointer_to(self._stages),
                len(self._stages) // 4,
                team(batch, threads, work, self.real.itemsize),
            ],
        )
        return Description(header, buffers, products, [*alive, numbers])

    def reads(self, weight: int) -> bool:
        """Whether a matrix that is contiguous need not be packed: each product is with its rows."""
        turned = [t.product.transposed for t in self.products if t.product.weight == weight]  # type: ignore[union-attr]
        return all(turned)

    def number(self, buffer: Buffer) -> int:
        """The number of a buffer in :attr:`Description.buffers`."""
        return self._number[buffer]

    def _pack(
        self,
        weights: Sequence[Tensor],
        threads: int,
        alive: list[Any],
        in_place: Collection[int],
    ) -> tuple[array[int], int]:
        """The products' descriptions, and how many multiplications a row takes."""
        products = array("q")
        work = 0
        for target in self.products:
            assert target.product is not None
            weight = resolved(weights[target.product.weight])
            alive.append(weight)
            depth, columns = weight.shape
            along, across = weight.stride()
            if target.product.transposed:
                depth, columns, along, across = columns, depth, across, along
            row = depth if target.product.weight in in_place else 0
            if row:
                packed = weight
            else:
                size = self.runtime.elman_packed_size(depth, columns)
                packed = torch.empty(size, dtype=self.real)
                self.runtime.elman_pack(
                    ctypes.c_void_p(weight.data_ptr()), along, across, depth, columns,
                    ctypes.c_void_p(packed.data_ptr()), threads,
                )  # fmt: skip
            alive.append(packed)
            source = self.program.resolve(target.product.source)
            products.extend(
                [
                    self._number[source],
                    self._number[self.program.resolve(target)],
                    depth,
                    columns,
                    packed.data_ptr(),
                    row,
                ]
            )
            work += depth * columns
        return products, work


def team(batch: int, threads: int, work: int, size: int) -> int:
    """How many threads share the same rows, meeting once a stage.

    Where there are enough rows and the weights fit a core's own cache, 1: every thread has rows of
    its own and none ever waits. Otherwise all, unless a step is too short to be worth a meeting.
    """
    if threads == 1 or (batch >= 4 * threads and work * size <= 3 << 19):
        return 1
    return threads if batch * work >= SHARED_FROM * threads else 1


def pointer_to(numbers: array[int]) -> int:
    """Where numbers lie in memory."""
    return numbers.buffer_info()[0]


def place(
    buffer: Buffer, sequences: Sequence[Tensor], parameters: Sequence[Tensor]
) -> Tensor | tuple[int, int]:
    """Where a buffer of the forward pass lies; see :meth:`Kernel.described`."""
    if buffer.kind == "sequence":
        return sequences[buffer.index]
    if buffer.kind == "vector":
        return parameters[buffer.index].reshape(-1)
    if buffer.kind == "state":
        return BEFORE, buffer.index
    if buffer.kind == "after":
        return AFTER, buffer.index
    return FIXED, 0
