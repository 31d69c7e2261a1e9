"""What the tests share: the cells they all run over, and how two computations are compared."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import hypothesis
import pytest
import torch
from torch import Tensor, sigmoid, softmax, tanh
from torch.utils._device import DeviceContext

from elman import Affine, Cell, Diagonal, Linear
from elman.cells import CELLS, contract, make

torch.set_num_threads(1)

# Where the tests' tensors and networks are made, such as "cuda"; most tests ask for no place.
DEVICE = os.environ.get("ELMAN_TEST_DEVICE", "cpu")

# Derandomised: a failure is the code's, and is there again on the next run.
hypothesis.settings.register_profile(
    "elman", derandomize=True, deadline=None, max_examples=25, database=None
)
hypothesis.settings.load_profile("elman")


def _documented() -> type[Cell]:
    """The example cell of the contract, from the page that the reader copies it from."""
    lines = iter(str(contract.__doc__).splitlines())
    code = [next(line for line in lines if line.startswith("    class "))]
    for line in lines:
        if line and not line.startswith("    "):
            break
        code.append(line)
    scope: dict[str, Any] = {
        "__name__": __name__, "Cell": Cell, "Affine": Affine, "Diagonal": Diagonal,
        "sigmoid": sigmoid, "tanh": tanh,
    }  # fmt: skip
    exec(textwrap.dedent("\n".join(code)), scope)
    return scope["PeepholeLSTM"]


class Attractor(Cell):
    """Takes x and has no Affine: named blocks of two Linear maps, and a reduction over a row."""

    drive = Linear("f n", of="x", bias=True)
    feedback = Linear("f n", of="h")

    def step(self, x: Tensor, h: Tensor) -> Tensor:
        w, u = self.drive(x), self.feedback(h)
        f = sigmoid(w.f + u.f)
        return f * h + (1 - f) * softmax(w.n + u.n, dim=-1)


class FastSlow(Cell):
    """Two states of different widths: a fast one, and a slow memory of ``slow`` units."""

    state = ("h", "m")
    net = Affine()
    recall = Linear(of="m", bias=True)
    write = Linear(of="h", to="m")

    def __init__(self, input_size: int, hidden_size: int, slow: int = 3, **options: Any):
        self.slow = slow
        super().__init__(input_size, hidden_size, **options)

    @property
    def state_sizes(self) -> tuple[int, ...]:
        return self.hidden_size, self.slow

    def step(self, z: Tensor, h: Tensor, m: Tensor) -> tuple[Tensor, Tensor]:
        h = tanh(z + self.recall(m))
        return h, 0.75 * m + self.write(h)


PeepholeLSTM = _documented()


@dataclass(frozen=True)
class Kind:
    """A cell to test with, in float64."""

    name: str
    build: Callable[..., Cell]

    def __call__(self, input_size: int, hidden_size: int, **options: Any) -> Cell:
        return self.build(input_size, hidden_size, **{"dtype": torch.float64, **options})


OPTIONS = {"clockwork": {"periods": (1, 2)}}  # a unit for each period, and hidden sizes from 2
KINDS = [Kind(name, partial(make, name, **OPTIONS.get(name, {}))) for name in CELLS] + [
    Kind(cell.__name__, cell) for cell in (PeepholeLSTM, Attractor, FastSlow)
]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name, scope="session")
def kind(request: pytest.FixtureRequest) -> Kind:
    """Every cell there is, and some as a user would write them. Hidden sizes from 2."""
    return request.param


@pytest.fixture(scope="session")
def kinds() -> dict[str, Kind]:
    """The same, by name."""
    return {kind.name: kind for kind in KINDS}


def _leaves(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif value is not None:
        for part in value:
            yield from _leaves(part)


@pytest.fixture(scope="session")
def leaves() -> Callable[[Any], list[Tensor]]:
    """The tensors of a nested structure, such as a state."""
    return lambda value: list(_leaves(value))


@pytest.fixture(scope="session")
def agree() -> Callable[..., None]:
    """Assert that two structures of tensors are equal: shape, dtype and every value."""

    def check(received: Any, expected: Any, tolerance: float = 1e-10) -> None:
        for a, b in zip(_leaves(received), _leaves(expected), strict=True):
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)

    return check


@pytest.fixture(scope="session")
def gradients() -> Callable[[Any, Sequence[Tensor]], list[Tensor]]:
    """Gradients of a weighted sum of outputs; zeros where none flows.

    Every element has a weight of its own: under a plain sum, exchanged outputs would not show.
    """

    def compute(outputs: Any, inputs: Sequence[Tensor]) -> list[Tensor]:
        loss = torch.zeros((), dtype=torch.float64)
        for k, output in enumerate(_leaves(outputs)):
            index = torch.arange(output.numel(), dtype=torch.float64, device=output.device)
            loss = loss + (torch.cos(index + 0.7 * k).reshape(output.shape) * output).sum()
        found = torch.autograd.grad(loss, inputs, allow_unused=True, retain_graph=True)
        return [torch.zeros_like(i) if g is None else g for g, i in zip(found, inputs, strict=True)]

    return compute


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Each test draws the same numbers, alone or among the others."""
    torch.manual_seed(0)


class _Elsewhere(DeviceContext):
    """PyTorch's default device; what a generator of the CPU draws is moved there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (kwargs or {}).get("generator") is None or kwargs.get("device") is not None:
            return super().__torch_function__(func, types, args, kwargs)
        found = func(*args, **kwargs)
        return found.to(self.device) if isinstance(found, Tensor) else found


@pytest.fixture(autouse=True)
def _on_device(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run the tests on another device, but for those that name devices themselves."""
    if DEVICE == "cpu" or request.node.get_closest_marker("names_devices"):
        yield
    else:
        with _Elsewhere(DEVICE):
            yield


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what tests recorded as their ``summary``, from all processes."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "summary":
                terminalreporter.write_line(value)
