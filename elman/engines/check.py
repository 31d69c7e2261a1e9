"""A cell's kernels beside the reference engine, once, before anybody relies on them.

Tracing sees PyTorch's operations, not the Python between them. What acts above them (a counter, a
hook on a gradient, a step that looks at the clock) could be lost without a word; here it is seen,
because the numbers differ.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import torch
from torch import Tensor

from elman.cells.contract import Cell
from elman.cells.lines import at, step_at
from elman.compiler.compiled import Compiled
from elman.compiler.cuda import build
from elman.compiler.lower import decompose
from elman.compiler.record import Unsupported
from elman.compiler.recorded import record, undisturbed
from elman.compiler.targets import Target
from elman.compiler.trace import Hoisted
from elman.engines import reference
from elman.engines.call import Call, Result
from elman.errors import ElmanError

Run = Callable[[Mapping[str, Tensor], Call], Result]

TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3}
"""Of the largest number of a tensor. Faults of this kind are of the size of the numbers."""

ROUNDED = 2e-2
"""That on CUDA where PyTorch rounds the factors of products to TensorFloat-32, 10 bits: the
reference engine's are, the kernels' within a step are not."""

ROUNDING = {torch.float64: 1e-13, torch.float32: 1e-5}
"""Of the largest number of all: what a small tensor may owe to the rounding of larger ones."""

DRAWS = 3
"""A step with thresholds may differ in one draw by rounding alone, but not in every one."""


def check(cell: Cell, hoisted: Hoisted, run: Run, real: torch.dtype, device: str = "cpu") -> None:
    """Compare a cell's kernels with the reference engine on random numbers.

    Outputs, states of every step, and the gradients of input, weights and states, for sequences of
    different lengths with a reset, are compared. Before, the step is recorded a second time.

    Args:
        cell: the cell.
        hoisted: from its trace.
        run: runs the kernels with given weights.
        real: the type of the numbers.
        device: the type of device that the kernels run on.

    Raises:
        Unsupported: they differ; the message says in what.
    """
    undisturbed(lambda: _check_twice(cell, hoisted, real))
    wrong = difference(cell, run, real, hoisted.changed, device)
    if wrong:
        raise Unsupported(
            f"its kernels give another {wrong} than its step does{at(step_at(cell))}: the step "
            "does something that PyTorch's operations alone do not show"
        )


def difference(
    cell: Cell, run: Run, real: torch.dtype, changed: str = "", device: str = "cpu"
) -> str | None:
    """What an engine gives otherwise than the reference engine on random numbers, or None.

    Args:
        cell: the cell.
        run: runs the engine with given weights.
        real: the type of the numbers.
        changed: the line of the step that changes a tensor in place, for a message.
        device: the type of device that both run on.

    Raises:
        Unsupported: PyTorch cannot differentiate the step.
        InputError: the cell does not keep to its contract.
    """
    wrong = None
    for seed in range(DRAWS):
        wrong = undisturbed(
            lambda s=seed: _difference(cell, run, _drawn(cell, real, device, s), changed),  # type: ignore[misc]
            device,
        )
        if wrong is None:
            return None
    return wrong


def _check_twice(cell: Cell, hoisted: Hoisted, real: torch.dtype) -> None:
    again = record(cell, decompose, real)
    if again.texts == hoisted.recording:
        return
    pairs = zip(again.texts, hoisted.recording, strict=False)
    first = next((k for k, (a, b) in enumerate(pairs) if a != b), -1)
    line = again.operations[first].line if 0 <= first < len(again.operations) else ""
    raise Unsupported(
        "its step does not do the same twice: it depends on something that changes outside of its "
        f"arguments{at(line or step_at(cell))}"
    )


def _difference(
    cell: Cell, run: Run, drawn: tuple[dict[str, Tensor], Call], changed: str
) -> str | None:
    """What differs, for one draw of the numbers."""
    weights, call = drawn
    real = call.x.dtype
    try:
        expected = _results(lambda w, c: reference.run(cell, w, c), weights, call)
    except ElmanError:
        raise
    except RuntimeError as error:
        said = (str(error).splitlines() or [""])[0]
        raise Unsupported(
            f"PyTorch itself cannot differentiate its step{at(changed or step_at(cell))} ({said})"
        ) from None
    received = _results(run, weights, call)
    sizes = {name: _largest(right) for name, right in expected.items()}
    tolerance, rounding = _tolerance(call.x), ROUNDING[real] * max(1.0, *sizes.values())
    for name, right in expected.items():
        found = received[name]
        finite = right.isfinite()
        limit = tolerance * sizes[name] + rounding
        if not bool(((found - right)[finite].abs() <= limit).all()):
            return name
    return None


def _tolerance(x: Tensor) -> float:
    matmul = torch.backends.cuda.matmul
    if x.is_cuda and x.dtype == torch.float32 and matmul.fp32_precision == "tf32":
        return ROUNDED
    return TOLERANCE[x.dtype]


def _largest(tensor: Tensor) -> float:
    finite = tensor[tensor.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _drawn(cell: Cell, real: torch.dtype, device: str, seed: int) -> tuple[dict[str, Tensor], Call]:
    draw = torch.Generator("cpu").manual_seed(seed)

    def some(*shape: int) -> Tensor:
        drawn = torch.randn(shape, generator=draw, dtype=torch.float64, device="cpu")
        return drawn.to(device, real).requires_grad_()

    steps, batch = 4, 3
    weights = {name: some(*shape) for name, shape in cell.weight_shapes().items()}
    weights |= {
        name: c.to(device, real if c.is_floating_point() else c.dtype)
        for name, c in cell.named_buffers()
    }
    resets = torch.zeros(steps, batch, dtype=torch.bool, device=device)
    resets[1, 1] = resets[2, 0] = True
    call = Call(
        some(steps, batch, cell.input_size),
        tuple(some(batch, size) for size in cell.state_sizes),
        tuple(some(batch, size) for size in cell.state_sizes),
        lengths=torch.tensor([steps, steps - 1, 0], device=device),
        resets=resets,
        every_state=True,
        noise=some(steps, batch, cell.noise_size).detach() if cell.noise_size else None,
    )
    return weights, call


def _results(run: Run, weights: Mapping[str, Tensor], call: Call) -> dict[str, Tensor]:
    """Outputs and gradients by what they are called in a message."""
    with torch.no_grad():
        found = {"output without a gradient": run(weights, call).y}
    y, last, every = run(weights, call)
    found["output"] = y.detach()
    found |= {f"last state {k}": s.detach() for k, s in enumerate(last)}
    found |= {f"history of state {k}": s.detach() for k, s in enumerate(every or ())}
    learned = {f"gradient of {name}": w for name, w in weights.items() if w.requires_grad}
    learned |= {f"gradient of state {k}": s for k, s in enumerate(call.state)}
    learned |= {f"gradient of start {k}": s for k, s in enumerate(call.start)}
    learned["gradient of the input"] = call.x
    outputs = [t for t in (y, *last, *(every or ())) if t.requires_grad]
    gradients: Any = [None] * len(learned)
    if outputs:
        # Of a sum: given slopes, torch.autograd.grad imports PyTorch's symbolic shapes, a second.
        slopes = [
            torch.linspace(-1, 1, t.numel(), dtype=t.dtype, device=t.device).view_as(t)
            for t in outputs
        ]
        parts = [(t * slope).sum() for t, slope in zip(outputs, slopes, strict=True)]
        total = torch.stack(parts).sum()
        gradients = torch.autograd.grad(total, list(learned.values()), allow_unused=True)
    for (name, tensor), gradient in zip(learned.items(), gradients, strict=True):
        found[name] = torch.zeros_like(tensor) if gradient is None else gradient
    return found


def fingerprint(
    compiled: Compiled, target: Target, device: str, real: torch.dtype, key: Hashable
) -> str:
    """What decides the outcome of :func:`check`, in short: of what has passed nobody asks again.

    ``key`` is what the step reads beside its tensors, its code among it (:attr:`Reading.key`).
    """
    hoisted = compiled.hoisted
    parts = [compiled.digest, target.name, _described(device), str(real)]
    parts += [*hoisted.recording, str(hoisted.operations), _text(key)]
    # Where a function lies in memory is another place in every process.
    text = re.sub(r" at 0x[0-9a-f]+", "", "\0".join([*parts, _of_elman()]))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _described(device: str) -> str:
    """What is there of a type of device, as far as kernels may give other numbers on another."""
    if device != "cuda":
        return device
    found = {
        f"{torch.cuda.get_device_name(k)} {torch.cuda.get_device_capability(k)}"
        for k in range(torch.cuda.device_count())
    }
    return ", ".join([build.version(), *sorted(found)])


def _text(part: Any) -> str:
    """A part of a key as a text that is the same in every process."""
    if isinstance(part, CodeType):
        # Not its lines: what stands above a step does not count.
        return _text((part.co_code, part.co_names, part.co_freevars, part.co_consts))
    if isinstance(part, tuple):
        return f"({','.join(map(_text, part))})"
    if isinstance(part, frozenset):
        return f"{{{','.join(sorted(map(_text, part)))}}}"
    if isinstance(part, (type, ModuleType)) or callable(part):
        named = getattr(part, "__qualname__", part.__name__)
        return f"{getattr(part, '__module__', '')}.{named}"
    return repr(part)


@cache
def _of_elman() -> str:
    """What elman itself is: all that has a part in the outcome."""
    folder = Path(__file__).parents[1]
    found = hashlib.sha256()
    for part in ("cells", "compiler", "engines"):
        for path in sorted((folder / part).rglob("*")):
            if path.suffix in (".py", ".hpp", ".cpp", ".cuh"):
                found.update(path.read_bytes())
    return found.hexdigest()
