"""From a cell's Python step to a list of aten operations, and the split at the loop over time.

The step runs once on small tensors under a dispatch mode that writes down every operation. What
depends on the input alone, or on the weights alone, is *hoisted*: PyTorch computes it for all
steps at once, before the loop, and differentiates it. What is left is the loop, whose inputs are
the hoisted values and the states; it is run a second time together with its gradient.

(``make_fx`` would do the same, but it imports a second's worth of modules that are not needed.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from elman.cells.contract import Cell
from elman.compiler.affine import affine
from elman.compiler.loop import Loop, with_gradient
from elman.compiler.record import Operation, Recorder, Unsupported
from elman.compiler.recorded import Recorded, record, undisturbed
from elman.compiler.split import apart, merge_biases, split, whole_map


@dataclass
class Hoisted:
    """What PyTorch computes before the loop, from the input and the weights.

    Attributes:
        x: the number of the input, a value (batch · time, width).
        noise: likewise of the noise, or None.
        weights: the numbers of the weights and constants, by name.
        operations: what to run.
        sequences: the numbers of what the loop reads at every step.
        parameters: the numbers of the weights that the loop reads.
        batch: the batch size that the step was traced with.
        changed: the first line of the step that changes a tensor in place, if one does.
        recording: what the step was recorded as, by which another recording is compared.
    """

    x: int
    noise: int | None
    weights: dict[str, int]
    operations: list[Operation]
    sequences: list[int]
    parameters: list[int]
    batch: int
    changed: str = ""
    recording: list[str] = field(default_factory=list)

    def run(
        self, x: Tensor, weights: Mapping[str, Tensor], noise: Tensor | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The loop's sequences, each (N, width), of x (N, M) and noise, and its weights."""
        values: dict[int, Any] = {number: weights[name] for name, number in self.weights.items()}
        values[self.x] = x
        if self.noise is not None:
            values[self.noise] = noise
        sizes = (self.batch, x.shape[0])
        for operation in self.operations:
            results = operation.run(values, sizes, x.device)
            values.update(zip(operation.results, results, strict=True))
        return [values[n] for n in self.sequences], [values[n] for n in self.parameters]

    def owns(self, k: int) -> bool:
        """Whether the k-th sequence is a map of the input's that nobody but the loop reads."""
        number = self.sequences[k]
        maps = [o for o in self.operations if o.function is affine and number in o.results]
        readers = [n for o in self.operations for n in o.refs()] + self.sequences
        return bool(maps) and readers.count(number) == 1


def trace(
    cell: Cell,
    decompose: Callable[[Any], Callable[..., Any] | None],
    real: torch.dtype,
    *,
    hoist: bool = True,
) -> tuple[Hoisted, Loop]:
    """Run ``cell`` once, with numbers of the type ``real``, and split it at the loop.

    Without ``hoist``, what depends on the input is a part of the loop, whose one sequence is x.

    Raises:
        Unsupported: the step asks for a value of the data, draws random numbers, or does what has
            no kernel.
    """
    return undisturbed(
        lambda: _divided(cell, record(cell, decompose, real), decompose, real, hoist)
    )


def _divided(
    cell: Cell,
    recorded: Recorded,
    decompose: Callable[[Any], Callable[..., Any] | None],
    real: torch.dtype,
    hoist: bool,
) -> tuple[Hoisted, Loop]:
    recorder, numbers, x_number = recorded.recorder, recorded.weights, recorded.x
    noise_number, state_numbers, batch = recorded.noise, recorded.states, recorded.batch
    operations = recorder.operations
    if cell.noise_size:
        operations = apart(operations, x_number, noise_number, cell.input_size, recorder.shapes)
    operations = merge_biases(operations, recorder)
    hoisted, loop, inputs = split(
        operations,
        {x_number, noise_number},
        state_numbers if hoist else [*state_numbers, x_number],
        recorded.new,
        recorder,
        real,
    )
    moving = [n for n in inputs if n in hoisted.moving] if hoist else []
    sequences = moving or [x_number]  # read or not, it says how many steps there are
    parameters = [n for n in inputs if n not in hoisted.moving]
    needed = [whole_map(operation, recorder.shapes) for operation in hoisted.needed(inputs)]
    drawn = noise_number if cell.noise_size else None
    before = Hoisted(
        x_number, drawn, numbers, needed, sequences, parameters, batch, recorder.changed,
        recorded.texts,
    )  # fmt: skip
    if hoist:
        _check_rows(before, recorder)
    fixed = {noise_number, *(numbers[name] for name, _ in cell.named_buffers())}
    for operation in operations:
        if fixed.issuperset(operation.refs()):
            fixed.update(operation.results)
    return before, with_gradient(
        loop, decompose, recorder.shapes, real, batch, sequences, parameters, state_numbers,
        recorded.new, fixed,
    )  # fmt: skip


def _check_rows(hoisted: Hoisted, recorder: Recorder) -> None:
    """That what runs before the loop treats every row alone: it will have those of all steps."""
    draw = torch.Generator().manual_seed(0)

    def some(number: int) -> Tensor:
        drawn = torch.rand(recorder.shapes[number], generator=draw, dtype=torch.float64) - 0.5
        real = recorder.types[number]
        return drawn.to(real) if real.is_floating_point else (drawn > 0).to(real)

    with torch.no_grad():
        x, weights = some(hoisted.x), {name: some(n) for name, n in hoisted.weights.items()}
        noise = None if hoisted.noise is None else some(hoisted.noise)
        half = hoisted.batch // 2
        whole, _ = hoisted.run(x, weights, noise)
        part, _ = hoisted.run(x[:half], weights, None if noise is None else noise[:half])
    for a, b in zip(whole, part, strict=True):
        if not torch.allclose(a[:half], b, rtol=1e-3, atol=1e-4, equal_nan=True):
            raise Unsupported("its step mixes the rows of the batch")
