"""The scan by the kernel that a GPU would run, on the CPU, beside PyTorch's operations."""

from __future__ import annotations

import sys
from contextlib import contextmanager

import pytest
import torch

from elman.cells.registry import make
from elman.compiler import recurrence
from elman.compiler.cuda import build, scan
from elman.compiler.recurrence import Course
from elman.engines import check
from elman.engines import scan as engine

REALS = {torch.float32: "float", torch.float64: "double"}


class Machine:
    """A few multiprocessors, whose threads run in an order that is drawn."""

    def __init__(self, shim, multiprocessors=4, seed=1):
        self.shim, self.multiprocessors, self.seed = shim, multiprocessors, seed
        self.launches = 0

    def load(self, source, name, real):
        options = [f"-DELMAN_REAL={REALS[real]}"]
        return self.shim.Module(source, options, seed=self.seed).function(name)

    @contextmanager
    def current(self):
        self.is_current = True
        yield
        self.is_current = False

    def stream(self):
        assert self.is_current
        self.launches += 1
        return 0


@pytest.fixture(params=[1, 3, scan.MOST_WARPS])
def machine(request, shim, monkeypatch):
    """A machine whose blocks have at most so many warps, that scans whatever lies on the CPU."""
    machine = Machine(shim, seed=request.param)
    monkeypatch.setattr(scan, "MOST_WARPS", request.param)
    monkeypatch.setattr(scan, "WARPS", request.param)
    taken = scan.kernel(lambda like: machine, lambda c: c.device.type == "cpu")
    monkeypatch.setitem(recurrence._provided, "cpu", taken)
    return machine


def drawn(seed, real=torch.float64):
    """A scan of drawn shape: what it reads, and how it goes."""
    torch.manual_seed(seed)

    def below(n):
        return int(torch.randint(n, ()))

    steps, batch, units, complex = 1 + below(200), 1 + below(5), 1 + below(40), seed % 2 == 1
    width = units * (1 + complex)
    shape = [(width,), (steps, 1, width), (batch, width), (steps, batch, width)][below(4)]
    a = torch.rand(shape, dtype=real) * 1.4 - 0.7
    b = torch.randn(steps, batch, 2 * width, dtype=real)[..., :width]  # a block of a map's output
    first, again = torch.randn(2, batch, width, dtype=real)
    lengths = torch.randint(steps + 1, (batch,)) if below(2) else None
    resets = None
    if below(2):
        resets = torch.rand(steps, batch) < 0.05
        if lengths is not None:
            resets &= torch.arange(steps).unsqueeze(1) < lengths
    tensors = [a, b, first] + [again] * (resets is not None or below(2))
    return [t.requires_grad_() for t in tensors], Course(resets, lengths, bool(below(2)), complex)


def outcome(tensors, course, scanned):
    a, b, first, *again = tensors
    c, last = scanned(a, b, first, again[0] if again else None, course)
    torch.manual_seed(0)
    made = (c * torch.randn_like(c)).sum() + (last * torch.randn_like(last)).sum()
    return c, last, *torch.autograd.grad(made, tensors, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("seed", range(16))
def test_it_is_the_recurrence(machine, seed):
    tensors, course = drawn(seed)
    received = outcome(tensors, course, recurrence.scan)
    assert machine.launches == 2
    expected = outcome(tensors, course, recurrence.doubled)
    for one, other in zip(received, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_single_precision_and_a_part_of_the_gradients(machine):
    (a, b, first, *again), course = drawn(5, torch.float32)
    c, _ = recurrence.scan(a.detach(), b, first, again[0] if again else None, course)
    expected, _ = recurrence.doubled(a, b, first, again[0] if again else None, course)
    torch.testing.assert_close(c, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn_like(c)
    received = torch.autograd.grad(c, (b, first), weights)
    expected = torch.autograd.grad(expected, (b, first), weights)
    torch.testing.assert_close(received, expected, rtol=1e-5, atol=1e-5)


def test_the_order_of_the_threads_changes_no_bit(shim):
    a, b = torch.rand(100, 3, 50), torch.randn(100, 3, 50)
    first = torch.randn(3, 50)
    found = []
    for seed, multiprocessors in [(0, 1), (1, 4), (2, 30)]:
        machine = Machine(shim, multiprocessors, seed)
        scanner = scan.kernel(lambda like, machine=machine: machine, lambda c: True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scan, "MOST_WARPS", 2)
            patch.setattr(scan, "WARPS", 2)
            found.append(scanner.forward(a, b, first, None, Course())[0])
    assert all(torch.equal(c, found[0]) for c in found)


def test_a_reset_reads_nothing_of_an_infinite_past(machine):
    b = torch.ones(90, 2, 3, dtype=torch.float64)
    b[5] = torch.inf
    resets = torch.zeros(90, 2, dtype=torch.bool)
    resets[40] = True
    a, first = torch.full((3,), 0.5, dtype=torch.float64), b[0]
    c, last = recurrence.scan(a, b, first, first, Course(resets))
    assert c[5:40].isinf().all() and c[40:].isfinite().all() and last.isfinite().all()


def test_without_steps_or_units(machine):
    first = torch.randn(2, 3)
    c, last = recurrence.scan(torch.ones(3), torch.ones(0, 2, 3), first, None, Course())
    assert c.shape == (0, 2, 3) and torch.equal(last, first)


@pytest.mark.parametrize("name", ["lru", "mingru", "qrnn"])
def test_cells_on_the_scan_engine(machine, name):
    cell = make(name, 3, 11).double()
    assert check.difference(cell, lambda *given: engine.run(cell, *given), torch.float64) is None
    assert machine.launches


@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("complex", [False, True])
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.skipif(sys.platform != "linux", reason="NVRTC is there for Linux")
def test_the_steps_stay_in_the_registers(real, complex, fixed, backward):
    text = scan.source(real, complex, fixed, backward)
    (used,) = build.resources(
        build.compile(text, "sm_90a", [f"-DELMAN_REAL={REALS[real]}"])
    ).values()
    assert used.spill_stores <= 32, used  # a step's numbers are 64 bytes and more
