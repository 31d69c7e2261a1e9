"""What programs are compiled for: the registry of targets, and targets beside the CPU's."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import tanh

import elman
from elman import Affine, Cell
from elman.compiler import targets
from elman.compiler.cpu.target import CPU
from elman.compiler.cuda import build, target
from elman.compiler.modes import exact, operand
from elman.engines import check, choice, cuda, native


class Own(Cell):
    """Known to this file alone, with numbers that it makes itself."""

    net = Affine()

    def step(self, z, h):
        return tanh(z + h) * torch.full((h.shape[-1],), 0.5, dtype=h.dtype) + torch.tensor(0.25)


class Counting:
    """The CPU's kernels, and the shapes that they are asked for."""

    def __init__(self, **options):
        self.built, self.shapes = 0, []
        self.target = replace(CPU, **{"name": "counting", "build": self.build, **options})

    def build(self, programs, real):
        self.built += 1
        return {name: Counted(kernel, self) for name, kernel in CPU.build(programs, real).items()}


class Counted:
    def __init__(self, kernel, counting):
        self.kernel, self.counting = kernel, counting

    @property
    def buffers(self):
        return self.kernel.buffers

    def run(self, shape, *rest):
        self.counting.shapes.append(shape)
        self.kernel.run(shape, *rest)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return elman.Recurrent(Own(3, 5))


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randn(6, 2, 3)


def gradients(network, x):
    network.zero_grad()
    y, _ = network(x)
    y.square().sum().backward()
    return [y.detach(), *(p.grad.clone() for p in network.parameters())]


def test_a_device_has_the_target_that_was_provided_last():
    other = Counting().target
    assert targets.find("cpu") is targets.of(torch.device("cpu", 0)) is CPU
    with targets.replaced("cpu", other):
        assert targets.find("cpu") is other
        with pytest.raises(RuntimeError), targets.replaced("meta", other):
            assert targets.devices() == ("cpu", "cuda", "meta")
            raise RuntimeError
    assert targets.find("cpu") is CPU and targets.find("meta") is None


def test_devices_without_a_target_are_said():
    with pytest.raises(elman.InputError, match="tensors on cpu and cuda, not on meta: move"):
        targets.of(torch.device("meta"))


def test_another_target_runs_what_the_first_compiled(network, x):
    expected, counting = gradients(network, x), Counting()
    with targets.replaced("cpu", counting.target):
        received = gradients(network, x)
        assert network.engine == "native"
    assert counting.built == 1
    assert [s.backward for s in counting.shapes[-2:]] == [False, True]
    assert {s.operand for s in counting.shapes} == {"float32"}
    for a, b in zip(received, expected, strict=True):
        assert torch.equal(a, b)
    seen = len(counting.shapes)
    gradients(network, x)  # on the first again
    assert len(counting.shapes) == seen
    with targets.replaced("cpu", counting.target):
        gradients(network, x)
    assert counting.built == 1 and len(counting.shapes) == seen + 2


def test_every_target_is_compared_with_the_reference_by_itself(network, x, monkeypatch):
    monkeypatch.setattr(native.cache, "is_marked", lambda mark: False)
    gradients(network, x)

    def wrong(*given, **options):
        return 2 * CPU.product(*given, **options)

    with targets.replaced("cpu", replace(CPU, name="wrong", product=wrong)):
        with pytest.warns(elman.EngineWarning, match="give another gradient of weight_hh"):
            gradients(network, x)
        assert network.engine == "reference"
    assert network.engine == "native"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"missing": lambda: "no tool was found"}, "no tool was found"),
        ({"reals": (torch.float64,)}, "counting engine computes in float64, not in torch.float32"),
    ],
)
def test_what_a_target_cannot_is_said(network, x, options, why):
    counting = Counting(**options)
    with targets.replaced("cpu", counting.target):
        with pytest.warns(elman.EngineWarning, match=why):
            gradients(network, x)
        assert network.engine == "reference"
        with elman.engine("native"), pytest.raises(elman.InputError, match=why):
            network(x)
    assert not counting.built


def test_streams_are_the_processors_own(network, x):
    with torch.no_grad(), targets.replaced("cpu", Counting().target):
        y, _ = network(x)
        received, _ = network.step(x[0], network.initial_state(2))
    torch.testing.assert_close(received, y[0])


# -- another device, which is not here ------------------------------------------------------------


def test_what_a_step_makes_lies_where_its_input_does():
    class Made(Own):
        def step(self, z, h):
            return tanh(z + h * torch.arange(5) + torch.tensor([0.5] * 5))

    cell = Made(3, 5)
    hoisted = native.compiled(cell).hoisted
    assert any("device" in operation.kwargs for operation in hoisted.operations)
    weights = {n: torch.empty(s, device="meta") for n, s in cell.weight_shapes().items()}
    sequences, parameters = hoisted.run(torch.empty(6, 3, device="meta"), weights)
    assert {t.device.type for t in (*sequences, *parameters)} == {"meta"}


class Elsewhere(NamedTuple):
    """As much of a call on a GPU as the choice of an engine asks for."""

    x: Any
    state: tuple[torch.Tensor, ...]
    resets: torch.Tensor | None = None
    every_state: bool = False
    lengths: torch.Tensor | None = None


@pytest.fixture
def call():
    return Elsewhere(elsewhere(6, 2), (torch.zeros(2, 5),) * 2)


def elsewhere(steps, batch, dtype=torch.float32):
    device = torch.device("cuda", 0)
    return SimpleNamespace(device=device, shape=(steps, batch, 3), is_cuda=True, dtype=dtype)


def test_engines_on_a_gpu_are_pytorchs_for_its_own_cells_or_else_kernels(call):
    lstm = elman.cells.LSTM(3, 5)
    assert choice._preferred(lstm, call) == ["torch", "cuda", "reference"]  # few steps
    assert choice._preferred(lstm, call._replace(x=elsewhere(50, 99)))[0] == "torch"  # many rows
    assert choice._preferred(lstm, call._replace(x=elsewhere(50, 9, torch.half)))[0] == "torch"
    long = call._replace(x=elsewhere(50, 9))
    assert choice._preferred(lstm, long) == ["cuda", "torch", "reference"]
    with cuda_autocast(torch.float16):
        assert choice._preferred(lstm, long)[0] == "torch"
    with cuda_autocast(torch.bfloat16):
        assert choice._preferred(lstm, long)[0] == "cuda"
    resets = torch.zeros(6, 2, dtype=torch.bool)
    assert choice._preferred(lstm, call._replace(resets=resets)) == ["cuda", "reference"]
    assert choice._preferred(Own(3, 5), call) == ["cuda", "reference"]
    with targets.replaced("cuda", Counting(name="cuda").target):
        assert choice.usual(lstm, torch.float32, "cuda") == "cuda"
        assert choice.usual(lstm, torch.float64, "cuda") == "torch"
        assert choice.usual(Own(3, 5), torch.float32, "cuda") == "cuda"
        assert cuda.unsupported(Own(3, 5), call._replace(state=(torch.zeros(2, 5).bfloat16(),)))
    with targets.replaced("cuda", Counting(missing=lambda: "no NVRTC was found").target):
        assert choice.usual(Own(3, 5), torch.float32, "cuda") == "reference"
        assert cuda.unsupported(Own(3, 5), call) == "no NVRTC was found"
    assert native.unsupported(Own(3, 5), call) == "the native engine runs on the CPU, not on cuda:0"


def test_the_cuda_engine_runs_nothing_of_the_cpu(network, x):
    with (
        elman.engine("cuda"),
        pytest.raises(elman.InputError, match="runs on NVIDIA GPUs, not on cpu; use"),
    ):
        network(x)


def test_products_are_rounded_as_pytorch_is_told():
    assert operand(torch.float32, "cpu") == "float32"
    assert operand(torch.float32, "cuda") == "tf32"  # as PyTorch's RNNs
    for kind, name in ((torch.bfloat16, "bf16"), (torch.float16, "fp16")):
        with cuda_autocast(kind):
            assert operand(torch.float32, "cuda") == name
            assert operand(torch.float64, "cuda") == "float64"
            assert operand(torch.float32, "cpu") == "float32"
    switches = torch.backends.cuda.matmul, torch.backends.cudnn, torch.backends.cudnn.rnn
    before = [switch.fp32_precision for switch in switches]
    with exact("cuda"):
        assert operand(torch.float32, "cuda") == "float32"
    assert [switch.fp32_precision for switch in switches] == before
    assert operand(torch.float32, "cuda") == "tf32"


def test_modules_are_loaded_where_they_run(monkeypatch):
    current, loaded = [0], []

    @contextmanager
    def device(index):
        current.append(index)
        yield
        current.pop()

    class Module:
        def __init__(self, cubin):
            loaded.append(current[-1])

        def function(self, name):
            return name

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(target, "Module", Module)
    monkeypatch.setattr(target.build, "compile", lambda *_: build.Built(b"", ""))
    gpu = target.GPU.__new__(target.GPU)
    gpu.index, gpu.architecture = 1, "sm_90a"
    assert gpu.load("", "scan", torch.float32) == "scan"
    assert loaded == [1] and current == [0]


def test_a_check_on_other_gpus_is_another(monkeypatch):
    cards = ["H100", "A100"]
    monkeypatch.setattr(check.build, "version", lambda: "NVRTC 13.0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda k: cards[k])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda k: (9, 0))
    found = check._described("cuda")
    assert found == "NVRTC 13.0, A100 (9, 0), H100 (9, 0)"
    cards[:] = ["A100", "H100", "H100"]
    assert check._described("cuda") == found
    cards[:] = ["H100"]
    assert check._described("cuda") != found


def test_a_check_allows_for_the_rounding_that_pytorch_is_told_to_do():
    matmul = torch.backends.cuda.matmul
    x = SimpleNamespace(is_cuda=True, dtype=torch.float32)
    assert check._tolerance(x) == check.TOLERANCE[torch.float32]
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        assert check._tolerance(x) == check.ROUNDED
        x.dtype = torch.float64
        assert check._tolerance(x) == check.TOLERANCE[torch.float64]
    finally:
        matmul.fp32_precision = before


class cuda_autocast:
    """``torch.autocast("cuda")``, which PyTorch switches off where there is no GPU."""

    def __init__(self, kind):
        self.kind = kind

    def __enter__(self):
        self.before = torch.get_autocast_dtype("cuda")
        torch.set_autocast_dtype("cuda", self.kind)
        torch.set_autocast_enabled("cuda", True)

    def __exit__(self, *_):
        torch.set_autocast_enabled("cuda", False)
        torch.set_autocast_dtype("cuda", self.before)
