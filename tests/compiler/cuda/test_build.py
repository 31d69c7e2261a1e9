"""CUDA C++ to cubins, on any machine that has NVRTC."""

import os
import sys

import pytest

from elman.compiler import cache
from elman.compiler.cuda import build
from elman.compiler.ops import OPS

if sys.platform != "linux":  # elsewhere it is not among what the tests install
    pytest.skip("NVRTC is there for Linux", allow_module_level=True)

SCALE = """
extern "C" __global__ void scale(float* x, float a) {
  __shared__ float kept[32];
  kept[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = a * kept[31 - threadIdx.x];
}
extern "C" __global__ void __launch_bounds__(1024, 2) crowd(float* x, int n) {
  float kept[64];
  for (int i = 0; i < 64; ++i) kept[i] = x[i * n];
  __syncthreads();
  for (int i = 0; i < 64; ++i) x[i * n + 1] = kept[i];
}
"""

# Every function of the table, and everything of the device.
APPLY = """
extern "C" __global__ void apply_{name}(const real* in, real* out) {{
  const real x = in[threadIdx.x];
  out[threadIdx.x] = {value};
}}"""
FUNCTIONS = "\n".join(
    APPLY.format(name=name, value=op.expression.format(x="x"))
    for name, op in OPS.items()
    if op.operands == "x"
)
DEVICE = """
template <class T>
ELMAN_INLINE T load(const T* at, bool fresh) { return fresh ? load_fresh(at) : load_streaming(at); }
template <class O>
ELMAN_INLINE void multiply(unsigned* p, float* x, typename O::storage* y) {
  unsigned a[4] = {p[0], p[1], p[2], p[3]}, b[2] = {p[4], p[5]};
  float c[4] = {x[0], x[1], x[2], x[3]};
  O::multiply(c, a, b);
  for (int i = 0; i < 4; ++i) x[i] = shuffle_xor(c[i], O::K);
  y[0] = O::round(O::widen(y[1]) + c[0]);
}
struct Parameters {
  unsigned* flags;
  float* x;
  double* d;
  unsigned short* s;
  uint4* v;
  bool fresh;
};
extern "C" __global__ void device(const Parameters p) {
  multiply<Bf16>(p.flags, p.x, p.s);
  multiply<Fp16>(p.flags, p.x, p.s);
  multiply<Tf32>(p.flags, p.x, p.x);
  p.d[2] = Double::round(shuffle_xor(load(p.d, p.fresh), 1));
  p.x[2] = Float::round(load(p.x, p.fresh));
  p.s[2] = load(p.s, p.fresh);
  p.v[2] = load(p.v, p.fresh);
  block_barrier();
  warp_barrier();
  publish(p.flags, shuffle_xor(threadIdx.x, 2));
  while (observe(p.flags) < 9) {}
  float* shared = reinterpret_cast<float*>(shared_memory());
#if __CUDA_ARCH__ >= 900
  const uint4 theirs = load_cluster(reinterpret_cast<const uint4*>(shared), blockIdx.x & 1);
  if (theirs.x) p.x[4] = 1;
  cluster_barrier();
#endif
  p.x[3] = shared[threadIdx.x];
}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ELMAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "_failed", {})
    return tmp_path / "cache"


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("real", ["float", "double"])
def test_the_device_compiles(architecture, real):
    source = f'#include "device.cuh"\nnamespace elman {{\n{FUNCTIONS}\n{DEVICE}\n}}'
    built = build.compile(source, architecture, [f"-DELMAN_REAL={real}"])
    assert built.cubin.startswith(b"\x7fELF")
    assert "warning" not in built.log
    found = build.resources(built)
    assert "device" in found and "apply_tanh" in found
    assert found["apply_tanh"].registers < 64
    assert not any(kernel.spill_stores for kernel in found.values())


def test_what_a_kernel_occupies():
    found = build.resources(build.compile(SCALE, "sm_90a"))
    assert found["scale"].shared == 128
    assert found["scale"].stack == found["scale"].spill_stores == 0
    crowd = found["crowd"]
    assert crowd.registers <= 32
    assert min(crowd.stack, crowd.spill_stores, crowd.spill_loads) > 0


def test_builds_once(folder, monkeypatch):
    built = build.compile(SCALE, "sm_80")
    assert len([name for name in os.listdir(folder) if name.endswith(".cubin")]) == 1
    with monkeypatch.context() as patch:
        patch.setattr(build, "_compile", lambda *_: pytest.fail("built again"))
        assert build.compile(SCALE, "sm_80") == built
    for changed in [(SCALE, "sm_90a"), (SCALE, "sm_80", ["-lineinfo"]), (SCALE + " ", "sm_80")]:
        build.compile(*changed)
    assert len([name for name in os.listdir(folder) if name.endswith(".cubin")]) == 4


def test_headers_are_part_of_the_name(monkeypatch):
    build.compile(SCALE, "sm_80")
    monkeypatch.setattr(build, "_headers", lambda: {"device.cuh": "// another"})
    monkeypatch.setattr(build, "_compile", lambda *_: build.Built(b"new", ""))
    assert build.compile(SCALE, "sm_80") == build.Built(b"new", "")


def test_building_is_told(folder, capsys):
    from elman.cli.messages import Typed, listening

    cache._announce.cache_clear()
    with listening(Typed([], "", {})):
        build.compile(SCALE, "sm_80")
    told = f"compiling kernels for the GPU, to be kept in {folder} …\n"
    assert capsys.readouterr() == ("", told)


@pytest.mark.parametrize(
    ("source", "architecture", "why"),
    [
        ("__device__ int y = x;", "sm_80", r'cell.cu\(1\): error: identifier "x" is undefined'),
        ('\n#include "none.cuh"', "sm_80", r"cell.cu\(2\): catastrophic error: .*none.cuh"),
        ("", "sm_1", "error: invalid value for --gpu-architecture"),
    ],
)
def test_what_does_not_compile_says_why_and_is_not_tried_again(
    source, architecture, why, monkeypatch
):
    with pytest.raises(build.BuildError, match=f"NVRTC failed: .*{why}"):
        build.compile(source, architecture)
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("tried again"))
    with pytest.raises(build.BuildError, match=why):
        build.compile(source, architecture)


def test_without_nvrtc_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(build, "_candidates", lambda: iter(()))
    build._nvrtc.cache_clear()
    try:
        with pytest.raises(build.BuildError, match="pip install nvidia-cuda-nvrtc"):
            build.compile(SCALE)
    finally:
        build._nvrtc.cache_clear()


def test_names_of_architectures():
    assert [build.architecture(*found) for found in [(8, 0), (8, 6), (9, 0), (10, 0), (12, 0)]] == [
        "sm_80", "sm_86", "sm_90a", "sm_100a", "sm_120a",
    ]  # fmt: skip
