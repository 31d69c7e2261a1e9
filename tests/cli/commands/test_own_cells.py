"""A cell in a user's own file: whatever is wrong with it is one sentence with its line."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from elman import cli

HEAD = """\
import sys
import torch
from torch import nn, tanh
from elman import Affine, Cell, Constant, Diagonal, Linear


class Own(Cell):
"""
NET = "net = Affine()\n"
STEP = "def step(self, z, h):\n    return tanh(z)\n"


def _cell(*parts: str) -> str:
    return HEAD + textwrap.indent("".join(parts), "    ")


def _returns(value: str) -> str:
    return _cell(NET, f"def step(self, z, h):\n    return {value}  # here\n")


def _init(*lines: str) -> str:
    body = "".join(f"    {line}\n" for line in lines)
    return _cell(NET, STEP, f"def __init__(self, inputs, units, **options):\n{body}")


WRONG = {
    "float64": (_returns("tanh(z).double()"), ["returned h as torch.float64", "h.to(z.dtype)"]),
    "int": (_returns("tanh(z).long()"), ["returned h as torch.int64", "h.to(z.dtype)"]),
    "bool": (_returns("z > 0"), ["returned h as torch.bool", "h.to(z.dtype)"]),
    "complex": (_returns("torch.complex(z, h)"), ["h as torch.complex64", "real numbers"]),
    "dictionary": (_returns("{'h': z}"), ["returned dict", "a tensor for each state (h)"]),
    "array": (_returns("z.detach().numpy()"), ["returned ndarray", "a tensor for each state (h)"]),
    "exits in a step": (_returns("sys.exit(3)"), ["failed (SystemExit: 3)"]),
    "speaks of memory": (
        _cell(NET, "def step(self, z, h):\n    raise RuntimeError('memory location')  # here\n"),
        ["Own.step failed", "RuntimeError: memory location"],
    ),
    "raises in init": (
        _init("raise ValueError('first\\nsecond')  # here"),
        ["own.py:Own could not be made", "(ValueError: first)"],
    ),
    "exits in init": (_init("sys.exit(3)  # here"), ["could not be made", "(SystemExit: 3)"]),
    "memory in init": (
        _init("raise RuntimeError('the memory is wrong')  # here"),
        ["could not be made", "the memory is wrong"],
    ),
    "forgets super": (
        _cell(NET, STEP, "def __init__(self, inputs, units, **options):  # here\n    pass\n"),
        ["Own.__init__ does not call super().__init__(input_size, hidden_size, **options)"],
    ),
    "starts wrongly": (
        _cell(NET, STEP, "def reset_parameters(self):\n    1 / 0  # here\n"),
        ["could not be made", "ZeroDivisionError"],
    ),
    "step is 3": (
        _cell(NET, "step = 3\n").replace("(Cell):", "(Cell):  # here"),
        ["Own.step must be a method", "def step(self, x, h), received 3"],
    ),
    "forward": (
        _cell(NET, "forward = Linear(of='x')  # here\n", STEP),
        ["declares 'forward'", "a name that every cell has", "rename it"],
    ),
    "weight_ih": (
        _cell("weight_ih = Affine()  # here\n", STEP),
        ["the weight of 'weight_ih'", "is called weight_ih", "rename"],
    ),
    "bias_ih": (
        _cell(NET, "bias_ih = Linear(of='x')  # here\n", STEP),
        ["the weight of 'net'", "is called bias_ih", "rename"],
    ),
    "constant of 3": (
        _cell(NET, "@Constant  # here\ndef k(self):\n    return 3\n", STEP),
        ["the constant Own.k must be a tensor", "torch.tensor(3)", "received int"],
    ),
    "constant that raises": (
        _cell(NET, "@Constant\ndef k(self):\n    return 1 / 0  # here\n", STEP),
        ["the constant Own.k could not be made", "ZeroDivisionError"],
    ),
    "property": (
        _cell(
            NET,
            "@property\ndef gain(self):\n    return self.hiden_size  # here\n",
            "def step(self, z, h):\n    return self.gain * z\n",
        ),
        ["no attribute 'hiden_size'"],
    ),
    "of=7": (
        _cell("a = Linear(of=7)  # here\n", STEP),
        ["could not be imported", "of must be 'x', 'hidden' or the name of a state, received 7"],
    ),
    "state of 3": (
        _cell("state = 3\n", NET, STEP).replace("(Cell):", "(Cell):  # here"),
        ["Own.state must be a tuple of names", "received 3"],
    ),
}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Write a file of a cell's own, run a command in its folder: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text("the quick brown fox jumps over the lazy dog. " * 9)

    def run(source: str | bytes, *arguments: str):
        Path("own.py").write_bytes(source.encode() if isinstance(source, str) else source)
        code = cli.run(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def _sentence(errors: str, source: str) -> str:
    (line,) = errors.splitlines()
    assert line.startswith("elman: ")
    assert "fault in elman" not in line
    number = next(k for k, text in enumerate(source.splitlines(), 1) if "# here" in text)
    assert f"own.py:{number}" in line, line
    return line


TRAIN = (
    "train", "language-model", "book.txt", "--cell", "own.py:Own", "--hidden", "4", "--batch", "2",
    "--steps", "5", "--run", "r",
)  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_with_it_is_told(run, what):
    source, words = WRONG[what]
    code, out, errors = run(source, "cells", "own.py:Own", "--input", "3", "--hidden", "4")
    assert (code, out) == (2, "")
    for word in words:
        assert word in _sentence(errors, source), errors


@pytest.mark.parametrize("what", ["float64", "int", "raises in init", "weight_ih", "property"])
def test_a_training_tells_it_and_leaves_nothing(run, what):
    source, words = WRONG[what]
    code, out, errors = run(source, *TRAIN, "--epochs", "1")
    assert (code, out) == (2, "")
    assert words[0] in _sentence(errors, source)
    assert not Path("r").exists()


def test_a_deeper_layer_that_cannot_be_made(run):
    source = _init(
        "if inputs == units:",
        "    raise ValueError('not square')  # here",
        "super().__init__(inputs, units, **options)",
    )
    sizes = ("--hidden", "4", "--layers", "2", "--batch", "4", "--steps", "10", "--run", "r")
    arguments = ("train", "language-model", "book.txt", "--cell", "own.py:Own", *sizes)
    code, _, errors = run(source, *arguments)
    assert code == 2
    assert "Own could not be made with 4 inputs and 4 units" in _sentence(errors, source)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("class Own(:\n", ["own.py:1", "SyntaxError: invalid syntax"]),
        ("\nimport nonesuch\n", ["own.py:2", "No module named 'nonesuch'"]),
        ("import sys\nsys.exit(4)\n", ["own.py:2", "SystemExit: 4"]),
        ("class E(BaseException): pass\nraise E\n", ["own.py:2", "(E)"]),
        ("raise ValueError('a\\nb')\n", ["own.py:1", "(ValueError: a)"]),
        ("NAME = 'é'\n".encode("latin-1"), ["own.py", "SyntaxError", "utf-8"]),
    ],
)
def test_a_file_that_cannot_be_imported(run, source, words):
    code, out, errors = run(source, "cells", "own.py:Own")
    assert (code, out) == (1, "")
    (line,) = errors.splitlines()
    for word in ("own.py could not be imported", *words, "mend it first."):
        assert word in line, line


def test_a_folder_is_no_file(run):
    Path("folder.py").mkdir()
    code, _, errors = run("", "cells", "folder.py:Own")
    assert code == 1
    assert "no file 'folder.py'" in errors


def test_what_it_prints_does_not_mix_with_what_a_command_prints(run):
    other = "\n\nclass Other(Own):\n    pass\n"
    source = _cell(NET, STEP).replace("import sys\n", "import sys\nprint('hello')\n") + other
    code, out, errors = run(source, "cells", "own.py:Other", "--json", "--input", "3")
    assert code == 0
    assert json.loads(out)["cell"] == "own.py:Other"
    assert errors.startswith("hello")


def test_a_description_that_is_no_text_is_shown(run):
    code, out, _ = run(_cell("__doc__ = 3\n", NET, STEP), "cells", "own.py:Own", "--input", "3")
    assert code == 0
    assert out.startswith("own.py:Own: 3")


def test_a_cell_that_cannot_be_copied_is_trained(run):
    held = "def __init__(self, inputs, units, **options):\n"
    held += "    super().__init__(inputs, units, **options)\n"
    held += "    self.held = __import__('threading').Lock()\n"
    code, _, errors = run(_cell(NET, STEP, held), *TRAIN, "--epochs", "1")
    assert code == 0, errors


def test_a_cell_that_was_broken_meanwhile_is_not_the_checkpoints_fault(run):
    code, _, errors = run(_cell(NET, STEP), *TRAIN, "--epochs", "9", "--seconds", "1e-9")
    assert code == 0, errors
    broken = _cell(NET, "def step(self, z, h):\n    raise ValueError('no')  # here\n")
    resume = ("train", "language-model", "--resume", "r", "--seconds", "9")
    code, _, errors = run(broken, *resume, "--cell", "own.py:Own")
    assert code == 2
    assert "step failed" in _sentence(errors, broken)
    assert "checkpoint" not in errors
