"""The examples run, and do what they say."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path

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
