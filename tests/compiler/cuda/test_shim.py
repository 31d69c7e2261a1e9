"""The GPU of fibers: that it computes what kernels say, and tells those that are wrong."""

import struct
import time

import numpy as np
import pytest
import torch

from elman.compiler.cuda.launch import LaunchError

PRODUCT = """
#include "device.cuh"
namespace elman {
struct Parameters { const float* a; const float* b; float* c; };
// One warp multiplies [16][K] by [K][8], with the fragments that the PTX manual draws.
template <class O>
ELMAN_INLINE void product(const Parameters p) {
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  unsigned a[4], b[2];
  const auto pair = [](float low, float high) {
    return unsigned(O::round(low)) | unsigned(O::round(high)) << 16;
  };
  for (int i = 0; i < 4; ++i) {
    const float* row = p.a + (g + (i == 1 || i == 3 ? 8 : 0)) * 16 + t * 2 + (i >= 2 ? 8 : 0);
    a[i] = pair(row[0], row[1]);
  }
  for (int i = 0; i < 2; ++i) {
    const float* column = p.b + (t * 2 + i * 8) * 8 + g;
    b[i] = pair(column[0], column[8]);
  }
  float c[4];
  for (int i = 0; i < 4; ++i) c[i] = p.c[(g + (i >= 2 ? 8 : 0)) * 8 + t * 2 + (i & 1)];
  O::multiply(c, a, b);
  for (int i = 0; i < 4; ++i) p.c[(g + (i >= 2 ? 8 : 0)) * 8 + t * 2 + (i & 1)] = c[i];
}
extern "C" __global__ void bf16(const Parameters p) { product<Bf16>(p); }
extern "C" __global__ void fp16(const Parameters p) { product<Fp16>(p); }
extern "C" __global__ void tf32(const Parameters p) {
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  const auto word = [](float x) { return __float_as_uint(Tf32::round(x)); };
  const unsigned a[4] = {word(p.a[g * 8 + t]), word(p.a[(g + 8) * 8 + t]),
                         word(p.a[g * 8 + t + 4]), word(p.a[(g + 8) * 8 + t + 4])};
  const unsigned b[2] = {word(p.b[t * 8 + g]), word(p.b[(t + 4) * 8 + g])};
  float c[4];
  for (int i = 0; i < 4; ++i) c[i] = p.c[(g + (i >= 2 ? 8 : 0)) * 8 + t * 2 + (i & 1)];
  Tf32::multiply(c, a, b);
  for (int i = 0; i < 4; ++i) p.c[(g + (i >= 2 ? 8 : 0)) * 8 + t * 2 + (i & 1)] = c[i];
}

struct Rounding { const float* x; unsigned short* y; float* z; };
extern "C" __global__ void round_bf16(const Rounding p) {
  p.y[threadIdx.x] = Bf16::round(p.x[threadIdx.x]);
  p.z[threadIdx.x] = Bf16::widen(p.y[threadIdx.x]);
}
extern "C" __global__ void round_fp16(const Rounding p) {
  p.y[threadIdx.x] = Fp16::round(p.x[threadIdx.x]);
  p.z[threadIdx.x] = Fp16::widen(p.y[threadIdx.x]);
}
}
"""


def pointers(*arrays):
    return struct.pack(f"{len(arrays)}P", *(array.ctypes.data for array in arrays))


def tf32(x):
    """To ten bits behind the point, ties away from zero."""
    return ((x.view(np.uint32) + 0x1000) & 0xFFFFE000).view(np.float32)


ROUND = {
    "bf16": lambda x: torch.from_numpy(x).bfloat16().float().numpy(),
    "fp16": lambda x: x.astype(np.float16).astype(np.float32),
    "tf32": tf32,
}


@pytest.mark.parametrize("operands", ["bf16", "fp16", "tf32"])
def test_products_of_tiles(shim, operands):
    numbers = np.random.default_rng(1)
    k = 8 if operands == "tf32" else 16
    a, b, c = (
        numbers.standard_normal(shape).astype(np.float32) for shape in [(16, k), (k, 8), (16, 8)]
    )
    expected = c + ROUND[operands](a).astype(float) @ ROUND[operands](b).astype(float)
    shim.Module(PRODUCT).function(operands).launch(1, 32, 0, pointers(a, b, c))
    np.testing.assert_allclose(c, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("operands", ["bf16", "fp16"])
def test_rounding_is_that_of_pytorch(shim, operands):
    numbers = np.random.default_rng(2)
    bits = numbers.integers(0, 1 << 32, 1024, dtype=np.uint32)
    # Of halves those that are no infinity, and exact ties of either type.
    bits[256:512] = (bits[256:512] & 0x8FFFFFFF) | 0x30000000
    bits[512:640] = (bits[512:640] & 0xB7FF0000) | 0x00008000
    bits[640:768] = (bits[640:768] & 0xB7FFE000) | 0x00001000
    x = bits.view(np.float32)
    x[:6] = 0.0, -0.0, np.inf, -np.inf, 65519.9, 65520.0
    x[6:10] = 2.0**-24, 2.0**-25, 1.5 * 2.0**-25, 6.1e-5
    y, z = np.zeros(1024, np.uint16), np.zeros(1024, np.float32)
    shim.Module(PRODUCT).function(f"round_{operands}").launch(1, 1024, 0, pointers(x, y, z))
    real = torch.bfloat16 if operands == "bf16" else torch.float16
    expected = torch.from_numpy(x).to(real)
    a_number = ~np.isnan(x)
    theirs = expected.view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(y[a_number], theirs[a_number])
    np.testing.assert_array_equal(z, expected.float().numpy())


REVERSE = """
#include "device.cuh"
namespace elman {
struct Parameters { const real* x; real* y; unsigned* flags; int steps; };
template <bool WRITTEN, bool READ>
ELMAN_INLINE void reverse(const Parameters& p) {
  real* shared = reinterpret_cast<real*>(shared_memory());
  const unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
  for (int step = 0; step < p.steps; ++step) {
    shared[threadIdx.x] = p.x[at] + step;
    if (WRITTEN) block_barrier();
    p.y[at] += shared[blockDim.x - 1 - threadIdx.x];
    if (READ) block_barrier();
  }
}
extern "C" __global__ void right(const Parameters p) { reverse<true, true>(p); }
extern "C" __global__ void unwritten(const Parameters p) { reverse<false, true>(p); }
extern "C" __global__ void unread(const Parameters p) { reverse<true, false>(p); }

// From block to block, round and round: each adds its own to what the one before it has.
extern "C" __global__ void ring(const Parameters p) {
  const unsigned before = (blockIdx.x + gridDim.x - 1) % gridDim.x;
  for (int step = 1; step <= p.steps; ++step) {
    if (threadIdx.x == 0) {
      const unsigned wanted = blockIdx.x ? step : step - 1;
      while (observe(p.flags + before) < wanted) {}
    }
    block_barrier();
    const real* theirs = p.y + before * blockDim.x + threadIdx.x;
    p.y[blockIdx.x * blockDim.x + threadIdx.x] = load_fresh(theirs) + 1;
    block_barrier();
    if (threadIdx.x == 0) publish(p.flags + blockIdx.x, step);
  }
}
extern "C" __global__ void exchange(const Parameters p) {
  float* shared = reinterpret_cast<float*>(shared_memory());
  shared[threadIdx.x] = p.x[threadIdx.x] + blockIdx.x;
  cluster_barrier();
  const uint4* const four = reinterpret_cast<const uint4*>(shared) + threadIdx.x / 4;
  const uint4 theirs = load_cluster(four, (blockIdx.x + 3) % 4);
  const unsigned words[] = {theirs.x, theirs.y, theirs.z, theirs.w};
  p.y[blockIdx.x * blockDim.x + threadIdx.x] = reals(words[threadIdx.x % 4]);
  cluster_barrier();
}
extern "C" __global__ void butterfly(const Parameters p) {
  real x = p.x[threadIdx.x];
  for (int lanes = 1; lanes < 32; lanes *= 2) x += shuffle_xor(x, lanes);
  p.y[threadIdx.x] = x;
}

extern "C" __global__ void stuck(const Parameters p) {
  if (threadIdx.x != 7) block_barrier();
}
extern "C" __global__ void apart(const Parameters p) {
  if (threadIdx.x == 7) {
    block_barrier();
  } else {
    block_barrier();
  }
}
extern "C" __global__ void unset(const Parameters p) {
  while (!observe(p.flags)) {}
}
extern "C" __global__ void past(const Parameters p) {
  reinterpret_cast<float*>(shared_memory())[threadIdx.x] = 1;
}
extern "C" __global__ void unwritten_memory(const Parameters p) {
  p.y[threadIdx.x] = reinterpret_cast<real*>(shared_memory())[threadIdx.x];
}
}
"""


@pytest.fixture
def run(shim):
    """What a kernel makes of 0, 1, 2, …"""

    def run(name, blocks=1, threads=64, steps=3, seed=0, shared_bytes=None, cluster=1):
        module = shim.Module(REVERSE, seed=seed)
        x = np.arange(blocks * threads, dtype=np.float32)
        y, flags = np.zeros_like(x), np.zeros(blocks, np.uint32)
        parameters = pointers(x, y, flags) + struct.pack("i4x", steps)
        shared_bytes = 4 * threads if shared_bytes is None else shared_bytes
        module.function(name).launch(blocks, threads, shared_bytes, parameters, cluster=cluster)
        return y.reshape(blocks, threads)

    return run


def reversed_(blocks, threads, steps):
    x = np.arange(blocks * threads, dtype=np.float32).reshape(blocks, threads)
    return steps * x[:, ::-1] + sum(range(steps))


SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
def test_barriers(run, seed):
    np.testing.assert_array_equal(run("right", 3, 96, seed=seed), reversed_(3, 96, 3))


@pytest.mark.parametrize("name", ["unwritten", "unread"])
def test_a_missing_barrier_shows(run, name):
    right = reversed_(2, 64, 3)
    # NaN, where the memory was not written yet, is wrong, too.
    assert all((run(name, 2, 64, seed=seed) != right).any() for seed in SEEDS if seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_flags_between_blocks(run, seed):
    y = run("ring", 4, 64, steps=10, seed=seed)
    np.testing.assert_array_equal(y, np.repeat([[37], [38], [39], [40]], 64, 1))


@pytest.mark.parametrize("seed", SEEDS)
def test_clusters(run, seed):
    y = run("exchange", 8, 32, seed=seed, cluster=4)
    sender = np.array([3, 0, 1, 2, 7, 4, 5, 6])
    np.testing.assert_array_equal(y, sender[:, None] + np.arange(32))


def test_shuffles(run):
    np.testing.assert_array_equal(
        run("butterfly"), [[sum(range(32))] * 32 + [sum(range(32, 64))] * 32]
    )


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("name", "why"),
    [
        (
            "stuck",
            r"no thread can go on; 63 of 64 threads of a block \(block 0\) are at block_barrier",
        ),
        (
            "apart",
            r"threads of a block meet at different places: block_barrier of line \d+, block_",
        ),
        ("unset", "threads look at flags which nobody sets"),
    ],
)
def test_what_cannot_end_is_told(run, name, why, seed):
    with pytest.raises(LaunchError, match=f"{name}: .*{why}"):
        run(name, seed=seed)


def test_writes_past_shared_memory_are_told(run):
    with pytest.raises(LaunchError, match="block 0 writes past its 252 bytes of shared memory"):
        run("past", shared_bytes=252)
    run("past", shared_bytes=256)


def test_shared_memory_begins_as_nothing(run):
    assert np.isnan(run("unwritten_memory")).all()


def test_it_takes_no_time(run):
    run("right")  # compiled by now
    start = time.perf_counter()
    run("right", 4, 256, steps=25)
    assert time.perf_counter() - start < 1
