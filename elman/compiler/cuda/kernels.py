"""One program of a cell on a GPU: its kernels, one for each way to divide the work, and a run."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from elman.compiler.cuda.emit import ALIGNED, Emitted, emit
from elman.compiler.cuda.placement import Division, Placement, place
from elman.compiler.cuda.values import OPERANDS
from elman.compiler.ir import Buffer, Product
from elman.compiler.kernel import Shape, State, Where
from elman.compiler.memory import plain, pointer, resolved
from elman.compiler.modes import profiled
from elman.compiler.schedule import Program
from elman.errors import InputError


class Function(Protocol):
    """A kernel that can be launched."""

    def launch(
        self,
        grid: int,
        block: int,
        shared_bytes: int,
        parameters: bytes,
        *,
        stream: int = 0,
        cluster: int = 1,
    ) -> None:
        """Run it, all blocks at once, or all of a cluster."""

    def blocks_per_multiprocessor(self, block: int, shared_bytes: int) -> int:
        """How many blocks a multiprocessor holds at a time."""


class Device(Protocol):
    """What runs kernels: a GPU, or what stands for one in a test."""

    multiprocessors: int
    cluster: int
    """The most blocks that reach each other's shared memory; 1 where none does."""
    shared: int
    """Bytes of shared memory that a block may have."""

    def load(self, source: str, name: str, real: torch.dtype) -> Function:
        """The kernel of that name."""

    def current(self) -> AbstractContextManager[Any]:
        """A block in which it is the one that launches are for."""

    def stream(self) -> int:
        """The stream to run it on."""


@dataclass(frozen=True)
class _Way:
    """How a program runs on batches of one size."""

    division: Division
    emitted: Emitted
    function: Function
    products: Sequence[Product]
    groups: int
    grid: int
    room: _Room


class Kernel:
    """One program for one type of number."""

    def __init__(
        self, name: str, program: Program, real: torch.dtype, device: Callable[[Tensor], Device]
    ):
        self.name, self.program, self.real, self._device = name, program, real, device
        self.buffers = program.buffers
        self._functions: dict[Any, Function] = {}
        self._ways: dict[Any, _Way] = {}

    def run(
        self,
        shape: Shape,
        where: Where,
        states: Sequence[State],
        weights: Sequence[Tensor],
        zeroed: Collection[Buffer] = (),
    ) -> None:
        """Run the program over all steps, in one launch.

        Rows past their end are zeros in every series that it writes, ``zeroed`` or not.
        """
        carried = [s for s in states if not s.past]
        like = carried[0].first
        device = self._device(like)
        with device.current():
            way = self._way(tuple(s.first.shape[-1] for s in carried), shape, device)
            memory = torch.empty(way.room.size, dtype=torch.uint8, device=like.device)
            memory[: way.room.zeros].zero_()
            resets = None if shape.resets is None else plain(shape.resets.to(torch.bool))
            lengths = None if shape.lengths is None else plain(shape.lengths.to(torch.int64))
            tensors = [where(buffer) for buffer in self.buffers]
            matrices = [resolved(weights[product.weight]) for product in way.products]
            given = dict.fromkeys(way.emitted.arguments, 0)
            given |= {
                "steps": shape.steps, "batch": shape.batch, "reverse": shape.reverse,
                "groups": way.groups, "resets": pointer(resets), "lengths": pointer(lengths),
            }  # fmt: skip
            for buffer, tensor in zip(self.buffers, tensors, strict=True):
                if isinstance(tensor, Tensor):
                    step, row = (0, 0, *tensor.stride())[-3:-1]
                    given[f"data {buffer.name}"] = tensor.data_ptr()
                    given[f"step {buffer.name}"], given[f"row {buffer.name}"] = step, row
            for k, (product, matrix) in enumerate(zip(way.products, matrices, strict=True)):
                down, across = matrix.stride()
                turned = (across, down) if product.transposed else (down, across)
                given[f"matrix {k}"] = matrix.data_ptr()
                given[f"down {k}"], given[f"across {k}"] = turned
            for k, state in enumerate(carried):
                given |= _of_state(f"{k}", state)
            for k, state in enumerate(s for s in states if s.past):
                given |= _of_state(f"past {k}", state)
            begin = memory.data_ptr()
            given |= {name: begin + at for name, at in way.room.places.items()}
            numbers = [given[name] for name in way.emitted.arguments]
            with profiled("elman::steps"):
                way.function.launch(
                    way.grid, way.division.threads, way.emitted.shared,
                    struct.pack(f"{len(numbers)}q", *numbers), stream=device.stream(),
                    cluster=way.division.parts if way.division.sharing == "cluster" else 1,
                )  # fmt: skip

    def _way(self, widths: tuple[int, ...], shape: Shape, device: Device) -> _Way:
        """How to run on a batch of that size, which is worked out once."""
        key = divide, widths, shape.batch, shape.operand, device
        if key not in self._ways:
            self._ways[key] = self._found(widths, shape, device)
        return self._ways[key]

    def _found(self, widths: tuple[int, ...], shape: Shape, device: Device) -> _Way:
        operand, size = shape.operand or str(self.real)[len("torch.") :], self.real.itemsize
        backward = self.name == "backward"
        placed = place(self.program, widths, backward)
        for division, resident in divide(placed, shape.batch, device, operand):
            emitted = emit(self.name, placed, division, operand, size, device.shared)
            if emitted.shared <= device.shared and not (resident and emitted.packed):
                break
        else:
            raise InputError(
                f"the cuda engine needs {emitted.shared:,} bytes of shared memory for this cell, "
                f"and a block of this GPU has {device.shared:,}: use elman.engine('reference')."
            )
        key = emitted.source, device
        if key not in self._functions:
            self._functions[key] = device.load(emitted.source, self.name, self.real)
        function = self._functions[key]
        groups = -(-shape.batch // division.rows)
        at_once = groups
        if division.sharing != "cluster":  # all blocks have to be there at once
            at_once = min(groups, max(1, device.multiprocessors // division.parts))
        products = [m.buffer.product for stage in placed.stages for m in stage.products]
        room = _Room()
        _, deep, bytes_ = OPERANDS[operand]
        rows = groups * division.rows
        room.add("flags", 4 * groups * division.parts)
        for source in placed.sources if division.sharing != "cluster" else ():
            depth = -(-source.width // deep) * deep
            room.add(f"exchange {source.name}", 2 * rows * depth * bytes_)
        room.zeros = room.size
        room.add("gathered", 2 * rows * len(placed.reduced) * division.parts * size)
        for buffer in (*self.buffers, *placed.states):
            if f"space {buffer.name}" in emitted.arguments:
                room.add(f"space {buffer.name}", 2 * shape.batch * buffer.width * size)
        for k, packed in emitted.packed.items():
            room.add(f"packed {k}", packed * at_once * division.parts)
        return _Way(
            division, emitted, function, [p for p in products if p is not None], groups,
            at_once * division.parts, room,
        )  # fmt: skip


def _of_state(name: str, state: State) -> dict[str, int]:
    return {
        f"first {name}": state.first.data_ptr(),
        f"again {name}": pointer(state.again),
        f"history {name}": state.history.data_ptr(),
        f"last {name}": pointer(state.last),
        f"added {name}": pointer(state.added),
        f"again_out {name}": pointer(state.again_out),
        f"slots {name}": state.history.shape[0],
    }


class _Room:
    """Places in memory that is taken at once."""

    def __init__(self) -> None:
        self.size = self.zeros = 0  # bytes, and how many of them begin as zeros
        self.places: dict[str, int] = {}

    def add(self, name: str, size: int) -> None:
        self.places[name] = self.size
        self.size += -(-size // ALIGNED) * ALIGNED


def divide(
    placed: Placement, batch: int, device: Device, operand: str
) -> Iterator[tuple[Division, bool]]:
    """Ways to divide the work on a batch, the first the best, and whether only with the matrices
    in shared memory.

    A step's time is mostly that of a meeting and of reading the sources, which each block does for
    its rows. So the blocks are a cluster where its shared memory holds the matrices, because their
    meetings take less time. Otherwise rows come in small groups, as long as each group has blocks
    enough to hold its matrices; then in turn, as many at once as there is room for.
    """
    many, (_, deep, _) = device.multiprocessors, OPERANDS[operand]
    widest = max(
        [s.width for s in placed.states] + [m.units for s in placed.stages for m in s.products]
    )
    for rows in ROWS:
        groups = -(-batch // rows)
        for parts in (16, 8, 4, 2, 1):
            division = Division(rows, parts, "cluster")
            at_once = many if rows < ROWS[-1] else 4 * many
            fits = parts <= device.cluster and groups * parts <= at_once
            if fits and placed.clusters(division, deep):
                yield division, True
    for rows in ROWS:
        groups = -(-batch // rows)
        for most in (min(many // groups, MOST_PARTS), many // groups):
            if most:
                yield Division(rows, _parts(widest, most)), True
    for rows in reversed(ROWS):
        for most in (8, 16, 32, MOST_PARTS, many):
            yield Division(rows, _parts(widest, min(most, many))), True
    for rows in reversed(ROWS):
        for most in (min(MOST_PARTS, many), many):
            yield Division(rows, _parts(widest, most)), False


def _parts(widest: int, most: int) -> int:
    """Into how many parts a width is divided, of equal units and no more than that many."""
    return -(-widest // -(-widest // most))


ROWS = (16, 32, 64)
"""Of the batch, that a group of blocks may have."""
MOST_PARTS = 64
"""Blocks of a group beyond which their meetings cost more than their work saves."""
