"""Whole cells by the kernels that a GPU would run, on the CPU, beside the reference engine."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from functools import partial

import pytest
import torch

import elman
from elman.cells.registry import CELLS, make
from elman.compiler import targets
from elman.compiler.compiled import compile_cell
from elman.compiler.cpu.products import column_sums
from elman.compiler.cuda import kernels
from elman.compiler.cuda.emit import emit
from elman.compiler.cuda.kernels import Kernel
from elman.compiler.cuda.placement import Division, place
from elman.engines import check, native

REALS = {torch.float32: "float", torch.float64: "double"}


def product(a, b, bias=None, *, out=None, operand=""):
    made = a @ b if bias is None else a @ b + bias
    return made if out is None else out.add_(made)


class Machine:
    """As many multiprocessors as one likes, whose threads run in an order that is drawn."""

    def __init__(self, shim, multiprocessors=4, seed=1, cluster=1, shared=1 << 18):
        self.shim, self.multiprocessors, self.seed = shim, multiprocessors, seed
        self.cluster, self.shared = cluster, shared

    def load(self, source, name, real):
        module = self.shim.Module(source, [f"-DELMAN_REAL={REALS[real]}"], seed=self.seed)
        return module.function(name)

    def current(self):
        return nullcontext()

    def stream(self):
        return 0

    def target(self, operand=""):
        def build(programs, real):
            made = {n: Kernel(n, p, real, lambda like: self) for n, p in programs.items()}
            for kernel in made.values():
                kernel.run = partial(_rounded, kernel.run, operand)
            return made

        return targets.Target(
            f"shim {operand}", tuple(REALS), build, product, column_sums, lambda: None
        )


def _rounded(run, operand, shape, *rest):
    run(shape if not operand else type(shape)(**{**vars(shape), "operand": operand}), *rest)


@contextmanager
def divided(rows, parts, sharing="meeting"):
    usual = kernels.divide
    kernels.divide = lambda *_: [(Division(rows, parts, sharing), False)]
    try:
        yield
    finally:
        kernels.divide = usual


def difference(cell, machine, operand=""):
    real = next(cell.parameters()).dtype
    with targets.replaced("cpu", machine.target(operand)):
        name = native._name(cell, real, "cpu")
        assert name[0] != "?", name
        return check.difference(cell, partial(native.steps_of, name, cell), real)


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_is_as_its_step_says(shim, name):
    cell = make(name, 3, 11).double()
    assert difference(cell, Machine(shim)) is None


ROUNDED = ["float32", "tf32", "bf16", "fp16"]


@pytest.fixture
def lenient(monkeypatch):
    """What is rounded is told apart from a fault, which is of the numbers' size."""
    monkeypatch.setitem(check.TOLERANCE, torch.float32, 3e-2)
    monkeypatch.setitem(check.ROUNDING, torch.float32, 1e-2)


@pytest.mark.parametrize("operand", ROUNDED)
def test_blocks_of_a_cluster_read_each_others_memory(shim, operand, lenient):
    with divided(16, 2, "cluster"):
        assert difference(make("lstm", 3, 32), Machine(shim, cluster=2), operand) is None


@pytest.mark.parametrize("operand", ROUNDED)
def test_products_are_rounded_to_what_was_asked(shim, operand, lenient):
    with divided(32, 3):
        assert difference(make("gru", 3, 13), Machine(shim), operand) is None


def grown(network, x, **given):
    """What a network gives, and every gradient."""
    x = x.clone().requires_grad_()
    y, state = network(x, **given)
    states = state if isinstance(state, tuple) else (state,)
    total = sum((t * torch.linspace(-1, 1, t.numel()).view(t.shape)).sum() for t in (y, *states))
    return [y, *states, *torch.autograd.grad(total, [x, *network.parameters()])]


@pytest.mark.parametrize(
    ("division", "cluster"),
    [
        ((16, 3, "meeting"), 1), ((32, 2, "meeting"), 1), ((64, 4, "meeting"), 1),
        ((16, 2, "cluster"), 2), ((32, 4, "cluster"), 4),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("name", ["lstm-peephole", "gru-reset-before"])
def test_rows_come_in_groups_and_groups_in_turn(shim, name, division, cluster):
    """More rows than the blocks that are there at once hold; lengths, resets, both directions."""
    torch.manual_seed(1)
    network = elman.Recurrent(make(name, 3, 16), bidirectional=True)
    steps, batch = 5, 71
    x, lengths = torch.randn(steps, batch, 3), torch.randint(1, steps + 1, (batch,))
    resets = (torch.rand(steps, batch) < 0.3) & (torch.arange(steps)[:, None] < lengths)
    given = {"lengths": lengths, "resets": resets}
    with elman.engine("reference"):
        expected = grown(network, x, **given)
    machine = Machine(shim, multiprocessors=2 * division[1], cluster=cluster)
    with targets.replaced("cpu", machine.target("float32")), divided(*division):
        found = grown(network, x, **given)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_matrices_that_fit_into_no_shared_memory_are_read_from_memory(shim):
    with divided(16, 2):
        assert difference(make("lstm", 3, 11).double(), Machine(shim, shared=40_000)) is None


@pytest.mark.parametrize("seed", range(1, 4))
def test_a_block_may_be_at_the_next_reduction(shim, seed):
    with divided(16, 2):
        cell = make("lstm-layer-norm", 3, 11).double()
        assert difference(cell, Machine(shim, seed=seed)) is None


class Hopper:
    multiprocessors, cluster, shared = 132, 16, 227 * 1024


class Ampere:
    multiprocessors, cluster, shared = 108, 1, 163 * 1024


class Small:
    multiprocessors, cluster, shared = 20, 1, 99 * 1024


@pytest.mark.parametrize("operand", ["tf32", "bf16"])
@pytest.mark.parametrize("machine", [Hopper, Ampere, Small])
def test_there_is_a_division_for_every_batch(machine, operand):
    for units in (1, 100, 768):
        compiled = compile_cell(make("lstm-layer-norm", 8, units), torch.float32)
        widths = [b.width for b in compiled.plan.step.states]
        for name in ("train", "backward"):
            placed = place(compiled.programs[name], widths, name == "backward")
            for batch in (32, 8192):
                found = (
                    emit(name, placed, division, operand, 4, machine.shared)
                    for division, _ in kernels.divide(placed, batch, machine, operand)
                )
                assert any(e.shared <= machine.shared for e in found), (units, batch)


def test_a_cell_for_which_there_is_no_room_is_said(shim):
    with pytest.raises(elman.InputError, match="bytes of shared memory for this cell"):
        difference(make("lstm", 3, 11), Machine(shim, shared=100))
