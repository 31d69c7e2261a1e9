"""Whole cells by the kernels that a GPU would run, on the CPU, beside the reference engine."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial

import pytest
import torch

from elman.cells.registry import CELLS, make
from elman.compiler import targets
from elman.compiler.cpu.products import column_sums
from elman.compiler.cuda import kernels
from elman.compiler.cuda.kernels import Kernel
from elman.compiler.cuda.placement import Division
from elman.engines import check, native

REALS = {torch.float32: "float", torch.float64: "double"}


def product(a, b, bias=None, *, out=None, operand=""):
    made = a @ b if bias is None else a @ b + bias
    return made if out is None else out.add_(made)


class Machine:
    """As many multiprocessors as one likes, whose threads run in an order that is drawn."""

    def __init__(self, shim, multiprocessors=4, seed=1, cluster=1):
        self.shim, self.multiprocessors, self.seed = shim, multiprocessors, seed
        self.cluster = cluster

    def load(self, source, name, real):
        module = self.shim.Module(source, [f"-DELMAN_REAL={REALS[real]}"], seed=self.seed)
        return module.function(name)

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
    kernels.divide = lambda *_: Division(rows, parts, sharing)
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


@pytest.mark.parametrize("operand", ["float32", "tf32", "bf16", "fp16"])
def test_blocks_of_a_cluster_read_each_others_memory(shim, operand, monkeypatch):
    if (
        operand != "float32"
    ):  # what is rounded is told apart from a fault, which is of the numbers' size
        monkeypatch.setitem(check.TOLERANCE, torch.float32, 3e-2)
        monkeypatch.setitem(check.ROUNDING, torch.float32, 1e-2)
    cell = make("lstm", 3, 32)
    with divided(16, 2, "cluster"):
        assert difference(cell, Machine(shim, cluster=2), operand) is None


@pytest.mark.parametrize("operand", ["float32", "tf32", "bf16", "fp16"])
def test_words_with_tags_need_no_meeting(shim, operand, monkeypatch):
    if operand != "float32":
        monkeypatch.setitem(check.TOLERANCE, torch.float32, 3e-2)
        monkeypatch.setitem(check.ROUNDING, torch.float32, 1e-2)
    cell = make("lstm", 3, 32)
    with divided(16, 4, "tag"):
        assert difference(cell, Machine(shim), operand) is None
