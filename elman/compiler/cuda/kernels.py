"""One program of a cell on a GPU: its kernels, one for each way to divide the work, and a run."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from elman.compiler.cuda.emit import ALIGNED, OPERANDS, Emitted, emit
from elman.compiler.cuda.placement import Division, Placement, place
from elman.compiler.ir import Buffer
from elman.compiler.kernel import Shape, State, Where
from elman.compiler.memory import plain, pointer, resolved
from elman.compiler.modes import profiled
from elman.compiler.schedule import Program


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

    def load(self, source: str, name: str, real: torch.dtype) -> Function:
        """The kernel of that name."""

    def stream(self) -> int:
        """The stream to run it on."""


class Kernel:
    """One program for one type of number."""

    def __init__(
        self, name: str, program: Program, real: torch.dtype, device: Callable[[Tensor], Device]
    ):
        self.name, self.program, self.real, self._device = name, program, real, device
        self.backward = name == "backward"
        self._built: dict[Any, tuple[Emitted, Function]] = {}
        self._placed: dict[Any, Placement] = {}

    @property
    def buffers(self) -> Sequence[Buffer]:
        """Those that a run asks the places of."""
        return self._buffers

    @functools.cached_property
    def _buffers(self) -> list[Buffer]:
        return self.program.buffers

    def _place(self, widths: tuple[int, ...], *, tagged: bool) -> Placement:
        key = widths, tagged
        if key not in self._placed:
            self._placed[key] = place(self.program, widths, self.backward, tagged=tagged)
        return self._placed[key]

    def run(
        self,
        shape: Shape,
        where: Where,
        states: Sequence[State],
        weights: Sequence[Tensor],
        zeroed: Collection[Buffer] = (),
    ) -> None:
        """Run the program over all steps, in one launch."""
        carried = [s for s in states if not s.past]
        past = [s for s in states if s.past]
        like = carried[0].first
        device = self._device(like)
        widths = tuple(s.first.shape[-1] for s in carried)
        placed = self._place(widths, tagged=False)
        operand = shape.operand or str(self.real).removeprefix("torch.")
        division = divide(placed, shape.batch, device, operand, self.real.itemsize)
        placed = self._place(widths, tagged=division.sharing == "tag")
        key = widths, division, operand, device
        if key not in self._built:
            emitted = emit(self.name, placed, division, operand, self.real.itemsize)
            self._built[key] = emitted, device.load(emitted.source, self.name, self.real)
        emitted, function = self._built[key]
        groups = -(-shape.batch // division.rows)
        resident = groups
        if division.sharing != "cluster":  # all blocks have to be there at once
            resident = min(groups, max(1, device.multiprocessors // division.parts))
        grid = resident * division.parts
        given: dict[str, int] = {
            "steps": shape.steps, "batch": shape.batch, "reverse": shape.reverse, "groups": groups,
        }  # fmt: skip
        resets = None if shape.resets is None else plain(shape.resets.to(torch.bool))
        lengths = None if shape.lengths is None else plain(shape.lengths.to(torch.int64))
        alive: list[Any] = [resets, lengths]
        given["resets"], given["lengths"] = pointer(resets), pointer(lengths)
        for k, target in enumerate(m.buffer for stage in placed.stages for m in stage.products):
            assert target.product is not None
            weight = resolved(weights[target.product.weight])
            alive.append(weight)
            down, across = weight.stride()
            if target.product.transposed:
                down, across = across, down
            given[f"matrix {k}"] = weight.data_ptr()
            given[f"down {k}"], given[f"across {k}"] = down, across
        for buffer in self.buffers:
            tensor = where(buffer)
            if isinstance(tensor, Tensor):
                alive.append(tensor)
                given[f"data {buffer.name}"] = tensor.data_ptr()
                step, row = (0, 0, *tensor.stride())[-3:-1]
                given[f"step {buffer.name}"], given[f"row {buffer.name}"] = step, row
        for k, state in enumerate(carried):
            given |= _of_state(f"{k}", state)
        for k, state in enumerate(past):
            given |= _of_state(f"past {k}", state)
        own = _Room()
        own.add("flags", 4 * groups * division.parts)
        _, deep, size = OPERANDS[operand]
        rows = groups * division.rows
        for source in placed.sources if division.sharing != "cluster" else ():
            depth = -(-source.width // deep) * deep
            tags = 2 if division.sharing == "tag" else 1
            own.add(f"exchange {source.name}", 2 * rows * depth * size * tags)
        most = max(len(s.reductions) for s in placed.stages)
        own.add("gathered", 2 * rows * most * division.parts * self.real.itemsize)
        zeros = own.size
        for name in emitted.arguments:
            if name.startswith("space "):
                width = next(b.width for b in (*self.buffers, *placed.states) if name == f"space {b.name}")
                own.add(name, 2 * shape.batch * width * self.real.itemsize)
        for k, bytes_ in emitted.packed.items():
            own.add(f"packed {k}", bytes_ * grid)
        memory = torch.empty(own.size, dtype=torch.uint8, device=like.device)
        memory[:zeros].zero_()
        alive.append(memory)
        given |= {name: memory.data_ptr() + at for name, at in own.places.items()}
        parameters = struct.pack(f"{len(emitted.arguments)}q", *(given[n] for n in emitted.arguments))
        with profiled("elman::steps"):
            function.launch(
                grid, division.threads, emitted.shared, parameters, stream=device.stream(),
                cluster=division.parts if division.sharing == "cluster" else 1,
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
        self.size = 0
        self.places: dict[str, int] = {}

    def add(self, name: str, size: int) -> None:
        self.places[name] = self.size
        self.size += -(-size // ALIGNED) * ALIGNED


def divide(
    placed: Placement, batch: int, device: Device, operand: str, real_size: int
) -> Division:
    """How to divide the work on a batch, so that a step takes little time.

    A step's time is mostly that of a meeting and of reading the sources, which each block does for
    its rows. So the blocks are a cluster where its shared memory holds the matrices: their meetings
    take a quarter of the time. Otherwise rows come in small groups, as long as each group has blocks
    enough to hold its matrices.
    """
    many, (_, deep, _) = device.multiprocessors, OPERANDS[operand]
    for rows in (16, 32, 64):
        groups = -(-batch // rows)
        for parts in (16, 8, 4, 2, 1):
            division = Division(rows, parts, "cluster")
            if (
                parts <= device.cluster
                and (groups * parts <= many or rows == 64 and groups * parts <= 4 * many)
                and placed.clusters(division, deep)
                and _shared(placed, division, operand, real_size) <= CLUSTER_LIMIT
            ):
                return division
    widest = max([s.width for s in placed.states] + [m.units for s in placed.stages for m in s.products])
    division = Division(16, 1)
    for rows in (16, 32, 64):
        groups = -(-batch // rows)
        for most in (min(many // groups, MOST_PARTS), many // groups):
            units = -(-widest // max(1, most))
            units += units % 2 if widest > 2 else 0  # whole words
            division = Division(rows, -(-widest // units))
            fits = _shared(placed, division, operand, real_size) <= SHARED_LIMIT
            if fits and groups * division.parts <= many:
                return _tagged(placed, division, operand)
    return _tagged(placed, division, operand)


def _tagged(placed: Placement, division: Division, operand: str) -> Division:
    """The division with tags, if they are possible and what is read with them is not too much."""
    _, deep, size = OPERANDS[operand]
    read = sum(2 * division.rows * s.width * size for s in placed.sources)
    if read <= TAGGED_LIMIT and placed.tags(division, deep, size):
        return replace(division, sharing="tag")
    return division


MOST_PARTS = 64
"""Blocks of a group beyond which their meetings cost more than their work saves."""
TAGGED_LIMIT = 112 * 1024
"""Bytes a step of words with tags beyond which reading them costs more than a meeting."""
SHARED_LIMIT = 200 * 1024
CLUSTER_LIMIT = 215 * 1024


def _shared(placed: Placement, division: Division, operand: str, real_size: int) -> int:
    """Bytes of shared memory that a block takes, about."""
    _, deep, size = OPERANDS[operand]
    total = 0
    for product in (m for stage in placed.stages for m in stage.products):
        assert product.buffer.product is not None
        columns = -(-product.columns(division) // 8) * 8
        _, _, parts = division.warps(columns)
        depth = -(-product.buffer.product.source.width // deep) * deep
        total += columns * depth * size + parts * division.rows * (columns + 2) * real_size
    if division.sharing == "cluster":
        for source in placed.sources:
            every = placed.written(source)
            own = len(every) * division.units(every[0][0])
            total += 2 * division.rows * own * size
    return total
