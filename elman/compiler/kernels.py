"""A cell's compiled programs, and one run of a program in memory."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elman.compiler.build import build, engine
from elman.compiler.call import profiled
from elman.compiler.differentiate import Plan, in_place, plan
from elman.compiler.emit import emit
from elman.compiler.ir import Buffer
from elman.compiler.loop import Loop
from elman.compiler.lower import Lowering
from elman.compiler.masks import is_tame
from elman.compiler.memory import plain, resolved
from elman.compiler.naming import digest
from elman.compiler.schedule import Program
from elman.compiler.trace import Hoisted
from elman.errors import InputError

FIXED, BEFORE, AFTER = 0, 1, 2

BUFFER, PRODUCT, MATRIX = 5, 6, 4
"""How many numbers a buffer and a product are in engine/program.hpp, and where a matrix stands."""

SHARED_FROM = 50_000
"""Multiplications a step, for each thread, from which threads share it."""


@dataclass
class State:
    """A state of a program: see ``struct State`` in engine/program.hpp."""

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
    """A program in memory: see engine/program.hpp for what the numbers are.

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
        self.engine = engine(real)
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
        lanes = self.engine.elman_vector_bytes() // real.itemsize
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
            self.engine.elman_run(described.address)

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
                size = self.engine.elman_packed_size(depth, columns)
                packed = torch.empty(size, dtype=self.real)
                self.engine.elman_pack(
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


class Compiled:
    """A cell of certain sizes and type of numbers: its plan, its source and its kernels."""

    def __init__(self, hoisted: Hoisted, loop: Loop, *, only_forward: bool = False):
        self.hoisted = hoisted
        self.digest = digest(hoisted, loop)
        self.tame = is_tame(hoisted.operations, hoisted.x)
        self.widths = [loop.shapes[n][-1:] for n in loop.sequences]
        self.shapes = [tuple(loop.shapes[n]) for n in loop.parameters]
        self.checked = False  # whether its numbers have been compared with the reference engine's
        self.refused = ""  # why it is not run: see native._ready
        self.plan: Plan = plan(Lowering(loop))
        owned = [k for k in range(len(hoisted.sequences)) if hoisted.owns(k)]
        self.places = in_place(self.plan, owned)
        self.programs = {"forward": self.plan.forward}
        if not only_forward:
            self.programs |= {"train": self.plan.train, "backward": self.plan.backward}
        self.source = emit(self.programs)
        self._kernels: dict[torch.dtype, dict[str, Kernel]] = {}

    def check_shapes(self, sequences: Sequence[Tensor], parameters: Sequence[Tensor]) -> None:
        """Raise where the loop would read memory as something that it is not.

        Raises:
            InputError: a weight has another shape than its cell declares.
        """
        found = [s.shape[-1:] for s in sequences], [p.shape for p in parameters]
        if found != (self.widths, self.shapes):
            shapes, expected = (
                ", ".join(str(tuple(s)) for part in parts for s in part)
                for parts in (found, (self.widths, self.shapes))
            )
            raise InputError(
                f"a weight has another shape than its cell declares: the step reads {shapes}; "
                f"expected {expected}."
            )

    def build(self, real: torch.dtype) -> None:
        """Compile the programs for one type of number, or take them from the cache.

        Raises:
            BuildError: it cannot be done here.
        """
        if real not in self._kernels:
            library = build(self.source, real)
            # At once, for threads that ask at the same moment.
            self._kernels[real] = {
                name: Kernel(name, program, real, library)
                for name, program in self.programs.items()
            }

    def kernel(self, name: str, real: torch.dtype) -> Kernel:
        """One of the programs."""
        self.build(real)
        return self._kernels[real][name]


def pointer_to(numbers: array[int]) -> int:
    """Where numbers lie in memory."""
    return numbers.buffer_info()[0]
