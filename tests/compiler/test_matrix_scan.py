"""Linear recurrences with matrices, and the structure that the Jacobians of cells have."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elman import cells
from elman.compiler.matrix_scan import matrix_scan
from elman.compiler.structure import structure

F64 = {"dtype": torch.float64}


@given(
    steps=st.integers(1, 40), batch=st.integers(1, 3), k=st.integers(1, 4),
    units=st.integers(1, 3), seed=st.integers(0, 99),
)  # fmt: skip
def test_it_is_the_recurrence(steps, batch, k, units, seed):
    draw = torch.Generator().manual_seed(seed)
    a = torch.randn(steps, batch, k, k, units, generator=draw, **F64) * 0.5
    b = torch.randn(steps, batch, k, units, generator=draw, **F64)
    c = torch.zeros(batch, k, units, **F64)
    for a_t, b_t, found in zip(a, b, matrix_scan(a, b), strict=True):
        c = torch.einsum("biju,bju->biu", a_t, c) + b_t
        torch.testing.assert_close(found, c, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "read", "kind", "units"),
    [
        ("mlp", (), "none", 0),
        ("rnn", (0,), "dense", 1),
        ("indrnn", (0,), "diagonal", 6),
        ("lstm", (0, 1), "dense", 1),
        ("sru-peephole", (1,), "diagonal", 6),  # nobody reads h
        ("mingru", (0,), "diagonal", 6),
        ("lru", (1,), "block", 6),  # real and imaginary parts
        ("tdnn", (1,), "block", 3),  # an input of three numbers moves through the window
        ("lstm-layer-norm", (0, 1), "dense", 1),
    ],
)
def test_structure_of_the_jacobian(name, read, kind, units):
    found = structure(cells.make(name, 3, 6), torch.float64)
    assert (found.read, found.kind, found.units) == (read, kind, units)


@pytest.mark.parametrize("name", sorted(cells.CELLS))
def test_what_is_not_read_has_no_derivative(name):
    """The structure holds for Jacobians at random states."""
    options = {"periods": (1, 2)} if name == "clockwork" else {}
    cell = cells.make(name, 3, 4, **options, **F64)
    found, sizes = structure(cell, torch.float64), cell.state_sizes
    torch.manual_seed(0)
    x, states = torch.randn(3, **F64), [torch.randn(size, **F64) for size in sizes]

    def step(*states):
        return tuple(cell(x.unsqueeze(0), *(s.unsqueeze(0) for s in states)))

    rows = torch.autograd.functional.jacobian(step, tuple(states))
    whole = torch.cat([torch.cat([b.squeeze(0) for b in row], -1) for row in rows])
    places = torch.arange(sum(sizes)).split(list(sizes))
    kept = torch.cat([places[k] for k in found.read]) if found.read else places[0][:0]
    others = sorted({*range(sum(sizes))} - {*kept.tolist()})
    assert not whole[:, others].any()
    of = torch.arange(len(kept)) % max(1, found.units)
    assert not whole[kept][:, kept][of.unsqueeze(1) != of].any()
