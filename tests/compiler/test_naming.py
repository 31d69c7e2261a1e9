"""Names of compiled cells: the same in every process, and another for whatever computes another."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import tanh

import elman
from elman import Affine, Cell, Linear, cells
from elman.engines import kept, native


class Own(Cell):
    """A cell that the user wrote."""

    net = Affine("a b")
    one = Linear(of="h")
    other = Linear(of="h")

    def __init__(self, input_size, hidden_size, scale=0.5, **options):
        self.scale = scale
        super().__init__(input_size, hidden_size, **options)

    def step(self, z, h):
        return tanh(z.a + self.one(h)) * torch.sigmoid(z.b) + self.scale * h


class Similar(Own):
    """The same source for the compiler, but another weight is multiplied."""

    def step(self, z, h):
        return tanh(z.a + self.other(h)) * torch.sigmoid(z.b) + self.scale * h


def name_of(cell):
    return native._ready(elman.Recurrent(cell)._cells[0], torch.float32, "cpu")


def forget(monkeypatch):
    """As in a process that has compiled nothing yet."""
    monkeypatch.setattr(kept, "COMPILED", kept._Kernels())
    monkeypatch.setattr(native, "_known", weakref.WeakKeyDictionary())


def test_what_computes_another_has_another_name():
    names = [name_of(c) for c in (Own(3, 4), Similar(3, 4), Own(3, 4, 0.25), Own(3, 5))]
    digests = {name.rpartition("#")[2] for name in names}
    assert len(digests) == 4
    assert name_of(Own(3, 4)) == names[0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "cell", [cells.LSTM(3, 4), cells.Clockwork(3, 4, periods=(1, 2)), Own(3, 4, 0.25)], ids=str
)
def test_programs_open_where_the_cell_was_never_made(cell, monkeypatch, tmp_path):
    rnn, x = elman.Recurrent(cell), torch.randn(5, 2, 3)
    expected, _ = rnn(x)
    torch.export.save(torch.export.export(rnn, (x,)), tmp_path / "program.pt2")
    forget(monkeypatch)
    seed = torch.random.get_rng_state()
    program = torch.export.load(tmp_path / "program.pt2").module()
    assert torch.equal(program(x)[0], expected)
    assert torch.equal(torch.random.get_rng_state(), seed)


def test_programs_say_which_cell_is_missing(monkeypatch):
    """They took whatever cell had been compiled as the first of its name."""

    class Own2(Own):
        pass

    name = name_of(Own2(3, 4))
    forget(monkeypatch)
    with pytest.raises(elman.InputError, match=r"holds the compiled cell .*Own2.*reference"):
        kept.COMPILED[name]


def test_nothing_is_imported_for_a_program(monkeypatch):
    forget(monkeypatch)
    for place in ("this:Zen", "os:system", "elman.cells.lstm:nothing", "elman.cells.lstm:json"):
        with pytest.raises(elman.InputError, match="holds the compiled cell"):
            kept.COMPILED[f"{place}[[3,4],{{}}]#float32-0123456789abcdef"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("engine", ["torch", "reference"])
def test_programs_of_pytorchs_operators_need_no_elman(engine, agree):
    rnn, x = elman.LSTM(3, 4, 2, bidirectional=True), torch.randn(5, 2, 3)
    with elman.engine(engine):
        program = torch.export.export(rnn, (x,))
    assert not any("elman" in str(node.target) for node in program.graph.nodes)
    agree(program.module()(x), rnn(x), 1e-6)


def test_gradients_of_programs_that_have_none():
    rnn, x = elman.GRU(3, 4), torch.randn(5, 2, 3)
    with torch.no_grad():
        program = torch.export.export(rnn, (x,)).module()
    with pytest.raises(elman.InputError, match="recorded where no gradient was wanted"):
        program(x)[0].sum().backward()
