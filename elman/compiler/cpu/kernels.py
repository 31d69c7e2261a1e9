"""One program of a cell, compiled, and one run of it in memory."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elman.compiler.cpu import layouts
from elman.compiler.cpu.build import runtime
from elman.compiler.cpu.layouts import address, packed
from elman.compiler.ir import Buffer
from elman.compiler.kernel import FIXED, Shape, State, Where
from elman.compiler.memory import plain, pointer, resolved
from elman.compiler.modes import profiled
from elman.compiler.schedule import Program

_BUFFER, _PRODUCT, _STATE, _PROGRAM = (
    layouts.positions(layouts.Buffer),
    layouts.positions(layouts.Product),
    layouts.positions(layouts.State),
    layouts.positions(layouts.Program),
)
_NO_STATE = packed(
    [
        layouts.State(
            first=0, again=0, history=0, present=0, last=0, added=0, again_out=0, width=0, slots=0,
            past=False,
        )
    ]
)  # fmt: skip

SHARED_FROM = 50_000
"""Multiplications a step, for each thread, from which threads share it."""


@dataclass
class Description:
    """A program in memory, as the runtime reads it.

    Attributes:
        header: one :class:`layouts.Program`.
        buffers: its :class:`layouts.Buffer`.
        products: its :class:`layouts.Product`.
        alive: the tensors and numbers that it points to.
    """

    header: array[int]
    buffers: array[int]
    products: array[int]
    alive: list[Any]


class Kernel:
    """One program for one type of number."""

    def __init__(self, name: str, program: Program, real: torch.dtype, cell: ctypes.CDLL):
        self.program, self.real = program, real
        self.runtime = runtime(real)
        self.buffers = program.buffers
        self._number = {buffer: k for k, buffer in enumerate(self.buffers)}
        self.products = program.products
        self._slots: list[array[int]] = []
        functions, stages = [], []
        for k, function in enumerate(program.functions):
            numbers = array("q", [self._number[program.resolve(b)] for b, _ in function.slots])
            offsets = array("q", [offset for _, offset in function.slots])
            self._slots += [numbers, offsets]
            functions.append(
                layouts.Function(
                    run=ctypes.cast(getattr(cell, f"{name}_{k}"), ctypes.c_void_p).value or 0,
                    width=function.width,
                    whole_rows=bool(function.reductions),
                    slots=len(numbers),
                    buffers=address(numbers),
                    offsets=address(offsets),
                )
            )
        first_product = first_function = 0
        for filled, applied in program.stages:
            stages.append(
                layouts.Stage(
                    first_product=first_product,
                    products=len(filled),
                    first_function=first_function,
                    functions=len(applied),
                )
            )
            first_product += len(filled)
            first_function += len(applied)
        self._functions, self._stages = packed(functions), packed(stages)
        self._block = self.runtime.elman_block()
        lanes = self.runtime.elman_vector_bytes() // real.itemsize
        self._rounded = [-(-b.width // lanes) * lanes for b in self.buffers]
        # What is alike in all runs; the rest is set by its position in a copy.
        self._buffers = packed(
            layouts.Buffer(
                data=0, step=0, row=0, width=b.width, place=FIXED, state=0, zeroed=False
            )
            for b in self.buffers
        )  # fmt: skip
        self._products = packed(
            layouts.Product(
                source=self._number[program.resolve(target.product.source)],  # type: ignore[union-attr]
                target=self._number[program.resolve(target)],
                depth=0, columns=0, matrix=0, down=0, across=0, packed=0,
            )
            for target in self.products
        )  # fmt: skip
        self._header = packed(
            [
                layouts.Program(
                    steps=0, batch=0, threads=0, reverse=False, backward=False, resets=0, lengths=0,
                    states=0, state_count=0, buffers=0, buffer_count=len(self.buffers),
                    products=0, product_count=len(self.products),
                    functions=address(self._functions), stages=address(self._stages),
                    stage_count=len(program.stages), team=1,
                )
            ]
        )  # fmt: skip

    def run(
        self,
        shape: Shape,
        where: Where,
        states: Sequence[State],
        weights: Sequence[Tensor],
        zeroed: Collection[Buffer] = (),
    ) -> None:
        """Run the program, of these arguments of :meth:`described`."""
        described = self.described(shape, where, states, weights, zeroed)
        with profiled("elman::steps"):
            self.runtime.elman_run(address(described.header))

    def described(
        self,
        shape: Shape,
        where: Where,
        states: Sequence[State],
        weights: Sequence[Tensor],
        zeroed: Collection[Buffer] = (),
        in_place: Collection[int] = (),
    ) -> Description:
        """The program in memory, as the runtime reads it.

        Args:
            shape: how it runs.
            where: where each buffer lies.
            states: what goes from step to step.
            weights: the matrices, by number.
            zeroed: the buffers whose rows past their end become zero.
            in_place: which matrices are read where they lie, not packed; :meth:`reads` says which
                may be.
        """
        steps, batch = shape.steps, shape.batch
        resets = None if shape.resets is None else plain(shape.resets.to(torch.bool))
        lengths = None if shape.lengths is None else plain(shape.lengths.to(torch.int64))
        alive: list[Any] = [weights, states, resets, lengths]
        buffers, at = self._buffers[:], _BUFFER
        private, used = [], 0  # buffers that nobody else reads, and how far into their space
        for k, (buffer, rounded) in enumerate(zip(self.buffers, self._rounded, strict=True)):
            place, first = where(buffer), k * len(_BUFFER)
            if isinstance(place, Tensor):
                alive.append(place)
                buffers[first + at.data] = place.data_ptr()
                buffers[first + at.step], buffers[first + at.row] = (0, 0, *place.stride())[-3:-1]
                buffers[first + at.zeroed] = buffer in zeroed
            elif place[0] == FIXED:
                private.append(first + at.data)
                buffers[first + at.data], buffers[first + at.row] = used, rounded
                used += rounded * batch * self.real.itemsize
            else:
                buffers[first + at.place], buffers[first + at.state] = place
                buffers[first + at.row] = states[place[1]].first.shape[-1]
        # Rows past their end go through products though no function has written them.
        made = torch.empty if lengths is None else torch.zeros
        space = made(used // self.real.itemsize, dtype=self.real)
        alive.append(space)
        begin = space.data_ptr()
        for data in private:
            buffers[data] += begin
        products, work = self._read(weights, alive, in_place)
        numbers = self._carried(states, alive)
        alive.append(numbers)
        threads = torch.get_num_threads()
        header, of = self._header[:], _PROGRAM
        header[of.steps], header[of.batch], header[of.threads] = steps, batch, threads
        header[of.reverse], header[of.backward] = shape.reverse, shape.backward
        header[of.resets], header[of.lengths] = pointer(resets), pointer(lengths)
        header[of.states], header[of.state_count] = address(numbers), len(states)
        header[of.buffers], header[of.products] = address(buffers), address(products)
        header[of.team] = team(batch, threads, work, self.real.itemsize)
        return Description(header, buffers, products, alive)

    @staticmethod
    def _carried(states: Sequence[State], alive: list[Any]) -> array[int]:
        """The states in memory."""
        numbers, at = _NO_STATE * len(states), _STATE
        for k, state in enumerate(states):
            first, present = k * len(at), torch.empty_like(state.first)
            alive.append(present)
            numbers[first + at.first] = state.first.data_ptr()
            numbers[first + at.again] = pointer(state.again)
            numbers[first + at.history] = state.history.data_ptr()
            numbers[first + at.present] = present.data_ptr()
            numbers[first + at.last] = pointer(state.last)
            numbers[first + at.added] = pointer(state.added)
            numbers[first + at.again_out] = pointer(state.again_out)
            numbers[first + at.width] = state.first.shape[-1]
            numbers[first + at.slots] = state.history.shape[0]
            numbers[first + at.past] = state.past
        return numbers

    def reads(self, weight: int) -> bool:
        """Whether a matrix that is contiguous need not be packed: each product is with its rows."""
        turned = [t.product.transposed for t in self.products if t.product.weight == weight]  # type: ignore[union-attr]
        return all(turned)

    def number(self, buffer: Buffer) -> int:
        """The number of a buffer in :attr:`Description.buffers`."""
        return self._number[buffer]

    def _read(
        self, weights: Sequence[Tensor], alive: list[Any], in_place: Collection[int]
    ) -> tuple[array[int], int]:
        """The products in memory, and how many multiplications a row takes."""
        numbers, at, work = self._products[:], _PRODUCT, 0
        for k, target in enumerate(self.products):
            assert target.product is not None
            weight = resolved(weights[target.product.weight])
            alive.append(weight)
            depth, columns = weight.shape
            down, across = weight.stride()
            if target.product.transposed:
                depth, columns, down, across = columns, depth, across, down
            first = k * len(at)
            numbers[first + at.depth], numbers[first + at.columns] = depth, columns
            numbers[first + at.matrix] = weight.data_ptr()
            numbers[first + at.down], numbers[first + at.across] = down, across
            if target.product.weight not in in_place:
                room = -(-columns // self._block) * self._block * depth
                packed = torch.empty(room, dtype=self.real)
                alive.append(packed)
                numbers[first + at.packed] = packed.data_ptr()
            work += depth * columns
        return numbers, work


def team(batch: int, threads: int, work: int, size: int) -> int:
    """How many threads share the same rows, meeting once a stage.

    Where there are enough rows and the weights fit a core's own cache, 1: every thread has rows of
    its own and none ever waits. Otherwise all, unless a step is too short to be worth a meeting.
    """
    if threads == 1 or (batch >= 4 * threads and work * size <= 3 << 19):
        return 1
    return threads if batch * work >= SHARED_FROM * threads else 1
