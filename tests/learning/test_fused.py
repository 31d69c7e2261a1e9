"""Clipping and NAdam in kernels of elman's own, which run on the CPU here, beside PyTorch's."""

from __future__ import annotations

import copy
import importlib.util
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn, optim

from elman.compiler.cuda import build
from elman.compiler.targets import BuildError
from elman.errors import EngineWarning
from elman.learning import clip_norm, clipping, fused, make_optimizer

CUDA_TESTS = Path(__file__).parents[1] / "compiler/cuda"
CPU = torch.device("cpu")


class Machine:
    """Two multiprocessors, whose threads run in an order that is drawn."""

    multiprocessors, cluster = 2, 1

    def __init__(self):
        spec = importlib.util.spec_from_file_location("shim", CUDA_TESTS / "shim.py")
        self.shim = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.shim)

    def load(self, source, name, real):
        assert real == torch.float32
        return self.shim.Module(source, ["-DELMAN_REAL=float"], seed=1).function(name)

    @contextmanager
    def current(self):
        self.is_current = True
        yield
        self.is_current = False

    def stream(self):
        assert self.is_current
        return 0


@pytest.fixture
def kernels(monkeypatch):
    """Let the CPU stand for a GPU: its kernels, which have passed the comparison at first use."""
    monkeypatch.setattr(fused, "_DEVICES", ("cpu",))
    monkeypatch.setattr(fused, "THREADS", 64)
    monkeypatch.setattr(fused, "_machine", lambda device: Machine())
    monkeypatch.setattr(fused, "_found", {})
    monkeypatch.setattr(clipping, "_waits", lambda _: True)
    found = fused.kernels(CPU)
    assert found is not None
    return found


def gradients(*sizes):
    return [torch.randn(*s) for s in sizes]


@pytest.mark.parametrize("threshold", [None, 1e9, 0.25])
def test_a_gradient_is_clipped_to_its_norm(kernels, threshold):
    given = gradients((40, 30), (7,), (2000,))
    expected = torch.cat([g.flatten() for g in given]).double().norm()
    kept = [g.clone() for g in given]
    norm = kernels.clip(given, threshold)
    torch.testing.assert_close(norm, expected)
    factor = min(1.0, threshold / float(expected)) if threshold else 1.0
    for g, before in zip(given, kept, strict=True):
        torch.testing.assert_close(g, before * factor)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_as_it_is(kernels, bad):
    given = [torch.tensor([1.0, bad]), torch.tensor([3.0])]
    kept = [g.clone() for g in given]
    norm = kernels.clip(given, 0.1)
    assert not norm.isfinite()
    torch.testing.assert_close(given, kept, equal_nan=True)


def test_more_parameters_than_a_launch_takes(kernels):
    given = gradients(*[(k,) for k in range(1, 100)])
    expected = torch.cat(given).double().norm()
    torch.testing.assert_close(kernels.clip(given, 1.0), expected)
    torch.testing.assert_close(torch.cat(given).norm(), torch.tensor(1.0))


@pytest.mark.parametrize("on_device", [False, True])
def test_nadam_is_pytorchs(kernels, monkeypatch, on_device):
    """Its weights, and all that it keeps, whichever of the two goes on with what the other kept."""
    torch.manual_seed(0)
    ours = nn.Sequential(*(nn.Linear(8, 8) for _ in range(30)))  # more than a launch takes
    theirs = copy.deepcopy(ours)
    mine = make_optimizer("nadam", ours, 0.01, weight_decay=0.1)
    peer = optim.NAdam(
        [
            {"params": [p for p in theirs.parameters() if p.dim() > 1], "weight_decay": 0.1},
            {"params": [p for p in theirs.parameters() if p.dim() == 1], "weight_decay": 0.0},
        ],
        lr=0.01,
    )  # fmt: skip
    launched = []
    launch = fused.Kernels._launch
    monkeypatch.setattr(
        fused.Kernels, "_launch", lambda self, *given: launched.append(given[0]) or
        launch(self, *given),
    )  # fmt: skip
    for group in mine.param_groups:
        group["capturable"] = True
        if on_device:
            group["lr"] = torch.tensor(0.01)
    for _ in range(4):
        x = torch.randn(5, 8)
        for model, optimizer in ((ours, mine), (theirs, peer)):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            clip_norm(model.parameters(), 0.25, error_if_nonfinite=False)
            optimizer.step()
    assert launched.count("nadam") == 8
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
        assert mine.state[p].keys() == peer.state[q].keys()
        for name, kept in mine.state[p].items():
            torch.testing.assert_close(kept, peer.state[q][name], rtol=1e-5, atol=1e-7)
    mine.load_state_dict(peer.state_dict())
    assert mine.state_dict()["state"].keys() == peer.state_dict()["state"].keys()


@pytest.mark.parametrize("how", ["counts on the host", "float64", "strides", "closure", "rates"])
def test_what_does_not_fit_is_pytorchs_work(kernels, monkeypatch, how):
    monkeypatch.setattr(fused.Kernels, "_launch", None)
    monkeypatch.setattr(
        sys.modules["torch.optim.nadam"], "_get_capturable_supported_devices", lambda **_: ["cpu"]
    )
    model = nn.Linear(3, 4)
    if how == "float64":
        model.double()
    optimizer = make_optimizer("nadam", model, 0.01)
    for group in optimizer.param_groups:
        group["capturable"] = how != "counts on the host"
    if how == "rates":
        optimizer.param_groups[1]["lr"] = 0.02
    model.weight.grad = torch.ones(3, 4).t() if how == "strides" else torch.ones_like(model.weight)
    before = model.weight.clone()
    optimizer.step((lambda: 1.0) if how == "closure" else None)
    assert not torch.equal(model.weight, before)


def test_kernels_that_cannot_be_made_are_told_once(monkeypatch):
    def fails(device):
        raise BuildError("NVRTC failed: no such thing")

    monkeypatch.setattr(fused, "_machine", fails)
    monkeypatch.setattr(fused, "_found", {})
    with pytest.warns(EngineWarning, match="NVRTC failed"):
        assert fused.kernels(CPU) is None
    assert fused.kernels(CPU) is None


def test_kernels_that_compute_something_else_are_not_used(kernels, monkeypatch):
    monkeypatch.setattr(fused, "_found", {})
    monkeypatch.setattr(fused.Kernels, "_launch", lambda *_: None)
    with pytest.warns(EngineWarning, match="differ"):
        assert fused.kernels(CPU) is None


@pytest.mark.skipif(sys.platform != "linux", reason="NVRTC is there for Linux")
def test_the_kernels_compile_for_a_gpu():
    source = (Path(fused.__file__).parent / "fused.cu").read_text(encoding="utf-8")
    found = build.resources(build.compile(source, "sm_90a", ["-DELMAN_REAL=float"]))
    assert set(found) == {"squares", "scale", "count", "nadam"}
    for name in ("squares", "scale", "nadam"):
        assert found[name].registers <= 64
        assert found[name].stack == found[name].spill_stores == 0
