"""What one run of a step was made of."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from elman.cells.contract import Cell
from elman.cells.lines import at, codes, step_at, step_line
from elman.cells.step_checks import check_attributes, check_step
from elman.compiler.modes import exact
from elman.compiler.record import Operation, Recorder, Stops, Unsupported
from elman.compiler.surrogate import attach

_T = TypeVar("_T")


@dataclass
class Recorded:
    """What one run of a step was made of: the numbers of what it read and gave."""

    recorder: Recorder
    weights: dict[str, int]
    x: int
    noise: int
    states: list[int]
    new: list[int]
    batch: int

    @property
    def texts(self) -> list[str]:
        """Each operation, and what was given in the end, as texts: in them NaN equals itself."""
        return [
            *(f"{o.function} {o.args} {o.kwargs} {o.results} {o.learns}" for o in self.operations),
            str(self.new),
        ]

    @property
    def operations(self) -> list[Operation]:
        """What was done, in this order."""
        return self.recorder.operations


def record(
    cell: Cell,
    decompose: Callable[[Any], Callable[..., Any] | None],
    real: torch.dtype,
) -> Recorded:
    """Run ``cell`` once on small tensors and write down what it does; for the rest :func:`trace`.

    Raises:
        Unsupported: as in :func:`trace`.
        InputError: the step does not keep to its contract.
    """
    weights = {k: torch.zeros(s, dtype=real) for k, s in cell.weight_shapes().items()}
    constants = {
        k: torch.zeros(c.shape, dtype=real if c.is_floating_point() else c.dtype)
        for k, c in cell.named_buffers()
    }
    sizes = {cell.input_size, cell.input_size + cell.noise_size, *cell.state_sizes}
    sizes |= {n for p in (*weights.values(), *constants.values()) for n in p.shape}
    batch = next(n for n in (97, 101, 103, 107, 109, 113, 127, 131) if n not in sizes)
    x = torch.zeros(batch, cell.input_size, dtype=real)
    noise = torch.zeros(batch, cell.noise_size, dtype=real)
    states = [torch.zeros(batch, size, dtype=real) for size in cell.state_sizes]

    bound = cell.bind(weights | constants)
    before = dict(vars(bound))
    recorder = Recorder(decompose, pure=True, steps=codes(cell))
    recorder.batch = batch
    numbers = {k: recorder.given(w) for k, w in (weights | constants).items()}
    x_number, noise_number = recorder.given(x), recorder.given(noise)
    state_numbers = [recorder.given(s) for s in states]
    for leaf in (x, *states, *weights.values()):
        leaf.requires_grad_()
    try:
        with recorder, Stops():
            new = bound(torch.cat([x, noise], -1) if cell.noise_size else x, *states)
    except Unsupported as why:
        # The made-up number of rows is nobody's business.
        said = re.sub(rf"\b{batch}\b", "B", str(why))
        raise Unsupported(f"{said}{at(step_line(cell, why))}") from None
    check_attributes(bound, before, x, states)
    check_step(bound, x, states, new)
    new_numbers = [recorder.see(n) for n in new]
    attach(new, recorder)
    known = {*numbers.values(), x_number, noise_number, *state_numbers}
    computed = {n for o in recorder.operations for n in o.results}
    _check_sources(cell, recorder, known | computed)
    if not known | computed >= set(new_numbers):
        raise Unsupported(
            "its step gives a state that no function of torch has made, so that no gradient goes "
            f"through it{at(step_at(cell))}: use torch's functions"
        )
    return Recorded(recorder, numbers, x_number, noise_number, state_numbers, new_numbers, batch)


def _check_sources(cell: Cell, recorder: Recorder, known: set[int]) -> None:
    for operation in recorder.operations:
        for number in operation.refs():
            if number not in known:
                raise Unsupported(
                    f"its step reads {_called(cell, recorder.tensor(number))} that is none of its "
                    f"declared weights{at(operation.line)}: declare what nobody learns as a "
                    "Constant"
                )


def _called(cell: Cell, tensor: Tensor) -> str:
    """What a tensor is to the cell, for a message."""
    for name, value in vars(cell).items():
        if isinstance(value, Tensor) and value.data_ptr() == tensor.data_ptr():
            return f"self.{name}, a tensor"
    return "a tensor"


def undisturbed(function: Callable[[], _T], device: str = "cpu") -> _T:
    """``function()`` as if nothing surrounded it: what is found holds for every later call.

    It runs on a type of device, on which the kernels' products are as exact as their numbers.

    In inference mode and under autocast PyTorch records other operations, and hooks would see what
    is not theirs.
    """
    with (
        torch.device(device),
        exact(device),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device, enabled=False),
        torch.autograd.graph.saved_tensors_hooks(lambda t: (t, t._version), _unchanged),
    ):
        return function()


def _unchanged(saved: tuple[Tensor, int]) -> Tensor:
    """What was saved for a gradient; hooks take the place of PyTorch's own test of this."""
    tensor, version = saved
    if tensor._version != version:
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace "
            "operation"
        )
    return tensor
