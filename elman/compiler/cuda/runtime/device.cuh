// The device: what kernels ask of a GPU, and the functions of a value, one unit a thread.
//
// ELMAN_REAL, the type of numbers, is float or double. Whoever defines ELMAN_DEVICE beforehand brings
// what stands between here and the functions of a value: so kernels run on a CPU, too, in the tests.
#pragma once

#ifndef ELMAN_DEVICE
#define ELMAN_DEVICE
#define ELMAN_INLINE __device__ __forceinline__

namespace elman {

// -- threads --------------------------------------------------------------------------------------

// The block's shared memory, as large as the launch says. There is no other: no __shared__ variables.
ELMAN_INLINE char* shared_memory() {
  extern __shared__ __align__(128) char elman_shared[];
  return elman_shared;
}

ELMAN_INLINE void block_barrier() { __syncthreads(); }
ELMAN_INLINE void warp_barrier() { __syncwarp(); }

// What the lane whose number differs in these bits has; all lanes of a warp call it together.
template <class T>
ELMAN_INLINE T shuffle_xor(T x, int lanes) {
  return __shfl_xor_sync(0xffffffffu, x, lanes);
}

// -- memory ---------------------------------------------------------------------------------------

// A flag between blocks. Who observes the value that was published sees whatever the publisher had
// written or seen before, and so do the threads that a barrier follows for; they read it by
// load_fresh. A loop that waits for a flag calls observe.
ELMAN_INLINE void publish(unsigned* flag, unsigned value) {
  asm volatile("st.release.gpu.u32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
}
ELMAN_INLINE unsigned observe(const unsigned* flag) {
  unsigned value;
  asm volatile("ld.acquire.gpu.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  return value;
}

// What other blocks have written while the kernel runs: from the L2 cache, never from a stale L1.
ELMAN_INLINE float load_fresh(const float* at) {
  float x;
  asm volatile("ld.relaxed.gpu.f32 %0, [%1];" : "=f"(x) : "l"(at) : "memory");
  return x;
}
ELMAN_INLINE double load_fresh(const double* at) {
  double x;
  asm volatile("ld.relaxed.gpu.f64 %0, [%1];" : "=d"(x) : "l"(at) : "memory");
  return x;
}
ELMAN_INLINE unsigned short load_fresh(const unsigned short* at) {
  unsigned short x;
  asm volatile("ld.relaxed.gpu.u16 %0, [%1];" : "=h"(x) : "l"(at) : "memory");
  return x;
}
ELMAN_INLINE uint4 load_fresh(const uint4* at) {
  uint4 x;
  asm volatile("ld.relaxed.gpu.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "l"(at)
               : "memory");
  return x;
}

// What is read once, and written by nobody while the kernel runs: past the L1 cache.
ELMAN_INLINE float load_streaming(const float* at) {
  float x;
  asm("ld.global.nc.L1::no_allocate.f32 %0, [%1];" : "=f"(x) : "l"(at));
  return x;
}
ELMAN_INLINE double load_streaming(const double* at) {
  double x;
  asm("ld.global.nc.L1::no_allocate.f64 %0, [%1];" : "=d"(x) : "l"(at));
  return x;
}
ELMAN_INLINE unsigned short load_streaming(const unsigned short* at) {
  unsigned short x;
  asm("ld.global.nc.L1::no_allocate.u16 %0, [%1];" : "=h"(x) : "l"(at));
  return x;
}
ELMAN_INLINE uint4 load_streaming(const uint4* at) {
  uint4 x;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
      : "l"(at));
  return x;
}

// -- operands of products -------------------------------------------------------------------------
//
// Of each type: how a number is stored, its nearest one, and that one as a number again. Those with
// tensor cores also multiply tiles, c += a b with a [16][K], b [K][8], c [16][8], by a whole warp. With
// g = lane / 4 and t = lane % 4, and K = 16, a lane holds, in pairs whose first has the lower bits,
//
//   a[0] = a[g][2t, 2t+1]   a[1] = a[g+8][2t, 2t+1]   a[2] = a[g][2t+8, 2t+9]   a[3] = a[g+8][2t+8, 2t+9]
//   b[0] = b[2t, 2t+1][g]   b[1] = b[2t+8, 2t+9][g]
//
// and with K = 8, the bits of one float each,
//
//   a[0] = a[g][t]   a[1] = a[g+8][t]   a[2] = a[g][t+4]   a[3] = a[g+8][t+4]
//   b[0] = b[t][g]   b[1] = b[t+4][g]
//
// and with both c[0] = c[g][2t], c[1] = c[g][2t+1], c[2] = c[g+8][2t], c[3] = c[g+8][2t+1].

#define ELMAN_MULTIPLY(SHAPE_AND_TYPES)                                                             \
  static ELMAN_INLINE void multiply(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { \
    asm volatile("mma.sync.aligned." SHAPE_AND_TYPES                                                \
                 " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                  \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                   \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));               \
  }

struct Bf16 {
  using storage = unsigned short;
  static constexpr int K = 16;
  static ELMAN_INLINE storage round(float x) {
    storage y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
  }
  static ELMAN_INLINE float widen(storage x) { return __uint_as_float(unsigned(x) << 16); }
  ELMAN_MULTIPLY("m16n8k16.row.col.f32.bf16.bf16.f32")
};
struct Fp16 {
  using storage = unsigned short;
  static constexpr int K = 16;
  static ELMAN_INLINE storage round(float x) {
    storage y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
  }
  static ELMAN_INLINE float widen(storage x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
    return y;
  }
  ELMAN_MULTIPLY("m16n8k16.row.col.f32.f16.f16.f32")
};
struct Tf32 {
  using storage = float;
  static constexpr int K = 8;
  static ELMAN_INLINE storage round(float x) {
    unsigned y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return __uint_as_float(y);
  }
  static ELMAN_INLINE float widen(storage x) { return x; }
  ELMAN_MULTIPLY("m16n8k8.row.col.f32.tf32.tf32.f32")
};
#undef ELMAN_MULTIPLY

// -- clusters: blocks that reach each other's shared memory ---------------------------------------

#if __CUDA_ARCH__ >= 900
ELMAN_INLINE void cluster_arrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
ELMAN_INLINE void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
ELMAN_INLINE void cluster_barrier() {
  cluster_arrive();
  cluster_wait();
}
// What lies at `at` in the shared memory of the cluster's block `rank`, as it was when that arrived.
ELMAN_INLINE uint4 load_cluster(const uint4* at, unsigned rank) {
  const unsigned here = static_cast<unsigned>(__cvta_generic_to_shared(at));
  unsigned there;
  uint4 x;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(here), "r"(rank));
  asm volatile("ld.shared::cluster.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "r"(there)
               : "memory");
  return x;
}
#endif

}  // namespace elman
#endif  // ELMAN_DEVICE

#include <cmath>

namespace elman {

// Without tensor cores.
struct Float {
  using storage = float;
  static ELMAN_INLINE storage round(float x) { return x; }
  static ELMAN_INLINE float widen(storage x) { return x; }
};
struct Double {
  using storage = double;
  static ELMAN_INLINE storage round(double x) { return x; }
  static ELMAN_INLINE double widen(storage x) { return x; }
};

// -- what functions.hpp asks of a type of value ---------------------------------------------------

template <class T>
struct Integer {
  using type = int;
};
template <>
struct Integer<double> {
  using type = long long;
};

using real = ELMAN_REAL;
using integer = Integer<real>::type;
using V = real;
using Mask = bool;

ELMAN_INLINE real splat(real x) { return x; }
ELMAN_INLINE integer bits(real x) {
  integer i;
  memcpy(&i, &x, sizeof i);
  return i;
}
ELMAN_INLINE real reals(integer i) {
  real x;
  memcpy(&x, &i, sizeof x);
  return x;
}
ELMAN_INLINE real where(bool mask, real a, real b) { return mask ? a : b; }
ELMAN_INLINE real real_of(bool mask) { return mask; }
ELMAN_INLINE bool logical_not(bool mask) { return !mask; }
template <class F>
ELMAN_INLINE real lanes(real x, F f) {
  return f(x);
}
template <class F>
ELMAN_INLINE real lanes(real x, real y, F f) {
  return f(x, y);
}
ELMAN_INLINE real sqrt(real x) { return std::sqrt(x); }
ELMAN_INLINE real inverse(real b) { return 1 / b; }
ELMAN_INLINE real quotient(real a, real b) { return a / b; }
ELMAN_INLINE real row_sum(real total, real x) { return total + x; }
ELMAN_INLINE real row_max(real best, real x) { return best > x || best != best ? best : x; }

}  // namespace elman

#include "functions.hpp"
