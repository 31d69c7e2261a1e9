"""Launches, as a driver without a GPU sees them; on a GPU, where there is one, their results."""

import ctypes
import os
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

from elman.compiler.cuda import build, launch

CONFIG = {
    "gridDimX": "grid",
    "blockDimX": "block",
    "sharedMemBytes": "shared_bytes",
    "hStream": "stream",
    "attrs": "attributes",
    "numAttrs": "count",
}


def headers():
    """The folder of cuda.h: of an installed toolkit, or of a package."""
    places = [Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include"]
    places += sorted(Path("/usr/local").glob("cuda-*/include"))
    packages = Path(sysconfig.get_paths()["purelib"])
    places += sorted(packages.glob("nvidia/*/include"))
    places += sorted(packages.glob("triton/backends/nvidia/include"))
    return next((place for place in places if (place / "cuda.h").is_file()), None)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    if sys.platform != "linux":  # elsewhere it is not among what the tests install
        pytest.skip("cuda.h is there for Linux")
    place = headers()
    assert place, "no cuda.h: install what the extra dev names"
    made = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    source = Path(__file__).parent / "driver.cpp"
    subprocess.run(
        ["g++", "-std=c++17", "-w", "-shared", "-fPIC", f"-I{place}", source, "-o", made],
        check=True,
    )
    return made


@pytest.fixture
def driver(compiled, monkeypatch):
    """The driver, as ctypes loads it; ``driver.said()`` is what it has been asked since."""
    monkeypatch.setattr(launch, "_LIBRARY", str(compiled))
    launch._driver.cache_clear()
    library = launch._driver()
    library.fake_said.restype = ctypes.c_char_p
    library.said = lambda: library.fake_said().decode().splitlines()
    library.said()
    yield library
    launch._driver.cache_clear()


CUBIN = b"cub\0x"


def test_structs_lie_as_in_the_header(driver):
    def number(name):
        return ctypes.c_size_t.in_dll(driver, name).value

    for theirs, ours in CONFIG.items():
        assert number(f"at_CUlaunchConfig_{theirs}") == getattr(launch.Config, ours).offset
    for name in ("id", "value"):
        assert number(f"at_CUlaunchAttribute_{name}") == getattr(launch.Attribute, name).offset
    for name, struct_ in [("Config", launch.Config), ("Attribute", launch.Attribute)]:
        assert number(f"size_CUlaunch{name}") == ctypes.sizeof(struct_)
    assert number("size_CUlaunchAttributeValue") == ctypes.sizeof(launch.Value)


def test_a_launch(driver):
    function = launch.Module(CUBIN).function("step")
    assert driver.said() == ["load cub0x", "function loaded 1"]
    parameters = b"abcdefghijklmnopqrstuvwx"
    function.launch(132, 256, 100_000, parameters, stream=0x7F00_1234_5678)
    assert driver.said() == [
        "shared = 100000",
        "grid 132 1 1 block 256 1 1 shared 100000 stream 0x7f0012345678 cooperative 1",
        f"parameters {parameters.decode()}",
    ]
    function.launch(128, 128, 64, parameters, cluster=16)
    assert driver.said() == [
        "large clusters = 1",
        "grid 128 1 1 block 128 1 1 shared 64 stream (nil) cluster 16 1 1",
        f"parameters {parameters.decode()}",
    ]


def test_what_fits(driver):
    function = launch.Module(CUBIN).function("step")
    driver.said()
    assert function.blocks_per_multiprocessor(256, 1 << 16) == 3
    assert driver.said() == ["shared = 65536", "occupancy 256 65536"]
    assert function.clusters(64, 256, 1024, 4) == 16
    assert driver.said() == ["grid 64 1 1 block 256 1 1 shared 1024 stream (nil) cluster 4 1 1"]


def test_errors_have_the_drivers_name(driver):
    module = launch.Module(CUBIN)
    with pytest.raises(launch.LaunchError, match=r"kernel other failed with CUDA_ERROR_NOT_FOUND"):
        module.function("other")
    function = module.function("step")
    with pytest.raises(
        launch.LaunchError, match=r"step failed with CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE \(so"
    ):
        function.launch(133, 32, 0, bytes(24))
    with pytest.raises(launch.LaunchError, match="given 8 bytes of parameters; it takes 24"):
        function.launch(1, 32, 0, bytes(8))
    with pytest.raises(launch.LaunchError, match="cuModuleLoadData failed with error 999"):
        launch.Module(b"other")
    driver.fake_context(0)
    try:
        with pytest.raises(launch.LaunchError, match="no CUDA context is current"):
            launch.Module(CUBIN)
    finally:
        driver.fake_context(1)


def test_no_driver_is_said(monkeypatch):
    monkeypatch.setattr(launch, "_LIBRARY", "libnone.so.1")
    launch._driver.cache_clear()
    with pytest.raises(launch.LaunchError, match=r"driver cannot be loaded .*libnone"):
        launch.Module(CUBIN)
    launch._driver.cache_clear()


SUM = """
#include "device.cuh"
namespace elman {
struct Parameters { const real* x; real* y; unsigned* flags; };
extern "C" __global__ void total(const Parameters p) {
  real* shared = reinterpret_cast<real*>(shared_memory());
  shared[threadIdx.x] = p.x[blockIdx.x * blockDim.x + threadIdx.x];
  block_barrier();
  for (unsigned n = blockDim.x / 2; n; n /= 2) {
    if (threadIdx.x < n) shared[threadIdx.x] += shared[threadIdx.x + n];
    block_barrier();
  }
  if (threadIdx.x) return;
  p.y[1 + blockIdx.x] = shared[0];
  publish(p.flags + blockIdx.x, 1);
  if (blockIdx.x) return;
  real all = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) {
    while (!observe(p.flags + b)) {}
    all += load_fresh(p.y + 1 + b);
  }
  p.y[0] = all;
}
}
"""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("captured", [False, True])
def test_on_a_gpu(captured):
    x = torch.arange(8.0 * 64, device="cuda")
    y, flags = torch.zeros(9, device="cuda"), torch.zeros(8, dtype=torch.int32, device="cuda")
    architecture = build.architecture(*torch.cuda.get_device_capability())
    built = build.compile(SUM, architecture, ["-DELMAN_REAL=float"])
    function = launch.Module(built.cubin).function("total")
    assert function.blocks_per_multiprocessor(64, 256) > 0
    parameters = struct.pack("3P", x.data_ptr(), y.data_ptr(), flags.data_ptr())

    def run():
        flags.zero_()
        stream = torch.cuda.current_stream().cuda_stream
        function.launch(8, 64, 256, parameters, stream=stream)

    if captured:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        y.zero_()
        graph.replay()
    else:
        run()
    assert y[0].item() == x.sum().item()
    assert torch.equal(y[1:], x.view(8, 64).sum(1))
