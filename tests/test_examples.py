"""The examples run, and do what they say."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def example(request, monkeypatch):
    name = request.param
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # inspect looks a class's file up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore::elman.EngineWarning")
@pytest.mark.parametrize("example", ["your_own_cell"], indirect=True)
def test_your_own_cell(example, capsys):
    assert len(inspect.getsource(example.STAR).splitlines()) < 25
    first = example.main(epochs=1, characters=4000)
    assert example.main(epochs=8, characters=4000) < 0.7 * first
    printed = capsys.readouterr().out
    assert "the time traveller" in printed
    assert "engine='native'" in printed
    model, codes = example.Writer(7, hidden=5), torch.arange(30) % 7
    assert example.stream_error(model, codes) < 1e-5


@pytest.mark.parametrize("example", ["from_scratch"], indirect=True)
def test_from_scratch(example, capsys):
    source = inspect.getsource(example)
    by_hand = source[: source.index("def distances")]
    assert len(source.splitlines()) < 150
    assert "torch" not in by_hand
    perplexities, distances = example.main(epochs=6, hidden=24)
    assert perplexities[-1] < 0.7 * perplexities[0] < 27
    assert len(distances) == 10  # outputs, loss, and the gradients by eight weights
    assert max(distances.values()) < 1e-10
    assert "perplexity" in capsys.readouterr().out
    for steps, batch in (1, 1), (5, 3):
        codes, targets = np.random.default_rng(steps).integers(9, size=(2, steps, batch))
        found = example.distances(example.draw(9, 4), codes, targets)
        assert max(found.values()) < 1e-10


@pytest.mark.filterwarnings("ignore::elman.EngineWarning")
@pytest.mark.parametrize("example", ["shapes"], indirect=True)
def test_shapes(example, capsys, tmp_path):
    shares = example.main(tmp_path / "shapes.png")  # asserts that each was learned
    assert list(shares) == [
        "one to one", "one to many", "many to one", "many to many, aligned",
        "many to many, unaligned",
    ]  # fmt: skip
    assert (tmp_path / "shapes.png").stat().st_size > 20_000
    printed = capsys.readouterr().out
    assert "f i v e EOS" in printed and "und neunzig EOS" in printed
    assert example.german(842) == ["acht", "hundert", "zwei", "und", "vierzig"]
    assert example.english(842) == ["eight", "hundred", "forty", "two"]
    assert [" ".join(example.german(n)) for n in (1, 21, 101)] == [
        "eins", "ein und zwanzig", "ein hundert eins",
    ]  # fmt: skip
