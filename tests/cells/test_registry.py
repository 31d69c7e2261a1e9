"""Cells by name, and a user's own in a file."""

from __future__ import annotations

import pickle
import re
import sys
from pathlib import Path

import pytest
import torch

import elman
from elman import cells

GOOD = '''\
"""A leaky integrator."""
from __future__ import annotations

from dataclasses import dataclass

from torch import tanh

from elman import Affine, Cell


@dataclass
class Settings:
    rate: float = 0.25


class Leaky(Cell):
    """Leaky integrator (Jaeger, 2007).

    h' = (1 − a) h + a tanh(W x + U h + b)
    """

    net = Affine()

    def step(self, z, h):
        a = Settings().rate
        return (1 - a) * h + a * tanh(z)


class NotACell:
    pass
'''


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "leaky.py"
    path.write_text(GOOD)
    return path


@pytest.mark.parametrize("name", list(cells.CELLS))
def test_every_entry_is_described(name):
    """What ``elman cells`` prints: a cell, its source, its equations."""
    entry = cells.find(name)
    assert entry.name == name
    assert entry.summary
    assert "\n" not in entry.summary
    others = [other.summary for other in cells.CELLS.values() if other.name != name]
    assert entry.summary not in others, "entries of one cell must differ by their options"
    assert any(f"{entry.cell.state[0]}' = " in line for line in entry.equations)
    assert re.fullmatch(r"[^()]*[^\W\d].* \d{4}", entry.source), entry.source
    cell = cells.make(name, 3, 6, biases=2)
    assert isinstance(cell, entry.cell)
    assert (cell.input_size, cell.hidden_size, cell.biases) == (3, 6, 2)


def test_made_with_their_options():
    assert cells.make("rnn-relu", 2, 3).nonlinearity == "relu"
    assert cells.make("rnn-sigmoid", 2, 3).nonlinearity == "sigmoid"
    assert cells.make("lstm-projected", 2, 7).state_sizes == (3, 7)
    assert cells.make("lstm-projected", 2, 7, proj_size=5).state_sizes == (5, 7)


def test_cell_of_a_file(file, agree):
    """With a dataclass in it, which looks its own module up while it is made."""
    entry = cells.find(f"{file}:Leaky")
    assert entry.summary == "Leaky integrator (Jaeger, 2007)"
    assert entry.equations == ["h' = (1 − a) h + a tanh(W x + U h + b)"]
    cell = cells.make(f"{file}:Leaky", 2, 3)
    x, h = torch.randn(4, 2), torch.randn(4, 3)
    z = x @ cell.weight_ih.T + h @ cell.weight_hh.T + cell.bias_ih
    agree(cell(x, h), [0.75 * h + 0.25 * torch.tanh(z)], 1e-6)
    rnn = elman.Recurrent(cell, 2, bidirectional=True)
    x = torch.randn(5, 4, 2)
    agree(pickle.loads(pickle.dumps(rnn))(x), rnn(x), 0.0)


def test_a_file_takes_no_name_of_another_module(tmp_path):
    """A cell in a file called ``random.py`` must not become everyone's ``random``."""
    import random

    path = tmp_path / "random.py"
    path.write_text(GOOD)
    cells.find(f"{path}:Leaky")
    assert sys.modules["random"] is random


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lstn", ["'lstn'", "did you mean 'lstm'", "gru", "path/to/file.py:ClassName"]),
        ("", ["''", "lstm", "path/to/file.py:ClassName"]),
        ("quark", ["'quark'", "expected one of mlp, tdnn", "path/to/file.py:ClassName"]),
        ("leaky.py", ["'leaky.py'", "path/to/file.py:ClassName"]),
    ],
)
def test_unknown_names(name, words):
    with pytest.raises(elman.InputError) as error:
        cells.find(name)
    for word in words:
        assert word in str(error.value)
    assert ("did you mean" in str(error.value)) == (name == "lstn")


@pytest.mark.parametrize(
    ("source", "label", "words"),
    [
        (None, "Leaky", ["no file", "leaky.py", "existing Python file"]),
        (GOOD, "Leeky", ["no cell 'Leeky'", "subclass of elman.Cell", "has Leaky"]),
        (GOOD, "NotACell", ["no cell 'NotACell'", "subclass of elman.Cell", "has Leaky"]),
        ("x = 1\n", "Leaky", ["no cell 'Leaky'", "has none"]),
        ("def f(:\n", "Leaky", ["could not be imported", "SyntaxError", "mend it"]),
        (
            "import nonesuch\n",
            "Leaky",
            ["could not be imported", "ModuleNotFoundError"],
        ),
    ],
)
def test_bad_files(tmp_path, source, label, words):
    path = tmp_path / "leaky.py"
    if source is not None:
        path.write_text(source)
    modules = set(sys.modules)
    with pytest.raises(elman.ElmanError) as error:
        cells.find(f"{path}:{label}")
    for word in [str(path), *words]:
        assert word in str(error.value)
    assert "Cell," not in str(error.value), "the base class is no suggestion"
    if source and "import" not in words[0]:
        return
    assert set(sys.modules) == modules, "a module that failed is not kept"


def test_the_page_of_cells_lists_them_all():
    page = (Path(__file__).parents[2] / "docs" / "cells.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if re.match(r"\| `[a-z-]+` \| `", line)]
    listed = {}
    for row in rows:
        name, cell, states, source, count = (part.strip() for part in row.split("|")[1:-1])
        listed[name.strip("`")] = cell.strip("`").split("(")[0], states, source, count
    assert listed == {
        entry.name: (entry.cell.__name__, ", ".join(entry.cell.state), entry.source, entry.count)
        for entry in cells.CELLS.values()
    }
