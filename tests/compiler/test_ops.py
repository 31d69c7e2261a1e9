"""The table of operations: every row against PyTorch, with its gradient."""

from __future__ import annotations

import pytest
import torch

import elman
from elman import Affine, Cell
from elman.compiler.differentiate import plan
from elman.compiler.evaluate import evaluate
from elman.compiler.ir import Buffer, Graph
from elman.compiler.lower import Lowering, decompose
from elman.compiler.ops import GRADIENTS, OPS, REDUCTIONS, op_of
from elman.compiler.trace import trace

NUMBERS = torch.tensor([0.0, -0.0, 1e-21, 1e-3, 0.5, 1.0, 1.5, 2.5, 30.0, 1e4], dtype=torch.float64)
NUMBERS = torch.cat([NUMBERS, -NUMBERS])


def arguments(op):
    """Every number beside every other: a mask tells the positive ones."""
    grids = torch.meshgrid([NUMBERS] * len(op.operands), indexing="ij")
    return [
        grid > 0 if kind in "mn" else grid for kind, grid in zip(op.operands, grids, strict=True)
    ]


def operators(op):
    return [getattr(torch.ops.aten, name) for name in (op.aten or op.name).split()]


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_a_row_has_the_value_of_its_operators(op):
    given = arguments(op)
    for operator in operators(op):
        right = operator(*given)
        torch.testing.assert_close(op(*given), right, rtol=0, atol=0, equal_nan=True)
        assert op.mask == (right.dtype == torch.bool)
        assert {op_of(getattr(operator, name)) for name in operator.overloads()} == {op}


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_an_operation_of_constants_is_one(op):
    graph = Graph()
    for given in zip(*(a.flatten().tolist() for a in arguments(op)), strict=True):
        node = graph.op(op.name, *map(graph.constant, given))
        right = op(*(torch.tensor(float(number), dtype=torch.float64) for number in given))
        assert node.op == "constant"
        found = torch.tensor(node.attribute, dtype=torch.float64)
        torch.testing.assert_close(found, right.double(), rtol=0, atol=0, equal_nan=True)
        assert torch.signbit(found) == torch.signbit(right.double())


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_tame_is_what_stays_finite_with_its_gradient(op):
    given = [a if a.dtype == torch.bool else a.float().requires_grad_() for a in arguments(op)]
    out = op.value(*given)
    found = [out.float()]
    if out.requires_grad:
        learned = [a for a in given if a.requires_grad]
        found += torch.autograd.grad(out.sum(), learned)
    assert op.tame == all(bool(t.isfinite().all()) for t in found)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_an_operation_and_its_gradient_are_lowered(op):
    class Using(Cell):
        net = Affine("x y z")

        def step(self, z, h):
            given = {"x": z.x + h, "y": z.y - h, "z": z.z, "m": h > z.x, "n": h > z.y}
            return torch.tanh(z.z) + op.value(*(given[kind] for kind in op.operands)).to(h.dtype)

    _, loop = trace(Using(2, 3), decompose, torch.float64)
    made = plan(Lowering(loop))
    assert any(node.op == op.name for f in made.forward.functions for node in f.nodes)


def test_powers_of_two_have_all_their_digits():
    class Power(Cell):
        net = Affine()

        def step(self, z, h):
            return 2.0**h

    h = torch.tensor([[[60.5, 100.0, -100.25, 0.1]]])
    with elman.engine("native"):
        y, _ = elman.Recurrent(Power(1, 4))(torch.zeros(1, 1, 1), h)
    torch.testing.assert_close(y, torch.exp2(h), rtol=2e-7, atol=0)


def test_gradients_of_their_own_belong_to_one_row_each():
    assert len(GRADIENTS) == sum(len(op.gradient) for op in OPS.values())
    for name in GRADIENTS:
        assert op_of(getattr(torch.ops.aten, name).default) is None
        assert decompose(getattr(torch.ops.aten, name).default) is GRADIENTS[name]


def test_a_graph_is_evaluated_from_what_is_known():
    graph = Graph()
    leaf = graph.leaf(Buffer("sequence", 0, 3))
    masked = graph.op("where", graph.op("gt", leaf, graph.constant(0)), leaf, graph.constant(2))
    total = graph.op("div", leaf, graph.reduce("row_sum", masked))
    best = graph.reduce("row_max", total)
    x = torch.tensor([[1.0, -1.0, 5.0], [2.0, 2.0, 4.0]])
    found = evaluate([total, best], {leaf: x})
    torch.testing.assert_close(found[total], x.double() / torch.tensor([[8.0], [8.0]]).double())
    assert found[best].tolist() == [[0.625], [0.5]]
    # What is known is not computed again, nor is what it would be computed from asked for.
    found = evaluate([best], {total: x})
    assert found[best].tolist() == [[5.0], [4.0]] and leaf not in found
    with pytest.raises(KeyError, match="sequence0"):
        evaluate([best], {})
    assert set(REDUCTIONS) == {"row_sum", "row_max"}
