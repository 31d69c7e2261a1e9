// A GPU of fibers: what device.cuh gives kernels, for one thread of a CPU, so that they run in tests.
//
// Each thread of each block is a fiber; all are alive at once, as in a cooperative launch, and one runs
// at a time, until it waits: at a barrier, in an operation of its warp, or after looking at a flag. Which
// goes on is by turns, or drawn by a seed, so that a barrier that is missing shows as a wrong number.
// A launch that cannot end is told; so are threads that meet at different barriers, and writes past the
// block's shared memory, which begins as NaN. Kernels write no __shared__, and only observe flags in loops.
#pragma once
#define ELMAN_DEVICE
#define ELMAN_INLINE inline

#include <sys/mman.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#define __restrict__ __restrict
#define __CUDA_ARCH__ 900

struct uint2 { alignas(8) unsigned x; unsigned y; };
struct uint4 { alignas(16) unsigned x; unsigned y, z, w; };
struct float2 { alignas(8) float x; float y; };
struct float4 { alignas(16) float x; float y, z, w; };
struct double2 { alignas(16) double x; double y; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
template <class To, class From>
To shim_bits(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To y;
  std::memcpy(&y, &x, sizeof y);
  return y;
}
inline float __uint_as_float(unsigned x) { return shim_bits<float>(x); }
inline unsigned __float_as_uint(float x) { return shim_bits<unsigned>(x); }
template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }

struct ShimIndex { unsigned x, y = 0, z = 0; };
inline ShimIndex threadIdx, blockIdx, blockDim, gridDim;

namespace shim {

constexpr int LANES = 32;
constexpr std::size_t STACK = 64 << 10, GUARD = 4 << 10, CANARY = 128;

// -- switching ------------------------------------------------------------------------------------

#if defined(__x86_64__)
// Leave what the caller would find in its registers on its stack, and go on from another.
extern "C" void shim_switch(void** from, void* to);
asm(R"(
.text
.type shim_switch, @function
shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size shim_switch, . - shim_switch
)");
struct Context {
  void* top;
  void begin(char* stack, void (*function)()) {
    void** at = reinterpret_cast<void**>(stack + STACK) - 2;
    *at = reinterpret_cast<void*>(function);  // where `ret` goes, with the stack as after a call
    at[1] = nullptr;
    top = at - 6;
  }
  void go(Context& to) { shim_switch(&top, to.top); }
};
#else
struct Context {
  ucontext_t kept;
  void begin(char* stack, void (*function)()) {
    getcontext(&kept);
    kept.uc_stack.ss_sp = stack;
    kept.uc_stack.ss_size = STACK;
    kept.uc_link = nullptr;
    makecontext(&kept, function, 0);
  }
  void go(Context& to) { swapcontext(&kept, &to.kept); }
};
#endif

// -- the grid -------------------------------------------------------------------------------------

// Threads that wait for each other: of a block, a warp or a cluster.
struct Group {
  const char* name;
  std::vector<int> waiting{};
  std::size_t size = 0;
  const char* what = nullptr;
  int line = 0;
};

struct Warp {
  Group group{"warp"};
  alignas(16) unsigned char in[LANES][64], out[LANES][64];
};

struct Fiber {
  Context context;
  char* stack;
  unsigned block, thread;
  Group* waits = nullptr;
};

struct Grid {
  const void* parameters;
  void (*kernel)(const void*);
  std::size_t shared_bytes, shared_pitch;
  unsigned cluster;
  std::uint64_t seed;
  unsigned favoured = 0;  // the block that mostly goes on

  Context scheduler;
  std::vector<Fiber> fibers;
  std::vector<Group> blocks, clusters;
  std::vector<Warp> warps;
  std::vector<int> ready;  // a ring, or where the order is drawn, a bag
  std::size_t first = 0, live = 0, idle = 0;
  int current = 0;
  char* shared = nullptr;
  std::string trouble;
};
inline Grid* grid = nullptr;

inline Fiber& self() { return grid->fibers[grid->current]; }
inline char* shared_of(unsigned block) { return grid->shared + block * grid->shared_pitch + CANARY; }

inline void pause() { self().context.go(grid->scheduler); }
inline void fail(std::string why) {
  if (grid->trouble.empty()) grid->trouble = std::move(why);
  pause();  // for good: the scheduler ends the launch
  std::abort();
}

inline std::string place(const Group& group) {
  return std::string(group.what) + " of line " + std::to_string(group.line);
}

// Wait until the whole group is here; the last to come does `all` for everybody.
template <class F>
void meet(Group& group, const char* what, int line, F all) {
  if (group.waiting.empty()) {
    group.what = what;
    group.line = line;
  } else if (group.line != line || std::strcmp(group.what, what)) {
    fail("threads of a " + std::string(group.name) + " meet at different places: " + place(group) + ", " +
         what + " of line " + std::to_string(line));
  }
  group.waiting.push_back(grid->current);
  grid->idle = 0;
  if (group.waiting.size() < group.size) {
    self().waits = &group;
    pause();
    return;
  }
  all();
  const std::vector<int> released = std::move(group.waiting);
  group.waiting.clear();
  for (int k : released) {
    grid->fibers[k].waits = nullptr;
    grid->ready.push_back(k);
  }
  pause();
}

inline Warp& warp() { return grid->warps[grid->current / LANES]; }

// An operation of a warp: `all` makes the lanes' results of their operands.
template <class Out, class In, class F>
Out together(const In& operand, const char* what, int line, F all) {
  static_assert(sizeof(In) <= 64 && sizeof(Out) <= 64);
  Warp& here = warp();
  const int lane = self().thread % LANES;
  std::memcpy(here.in[lane], &operand, sizeof operand);
  meet(here.group, what, line, [&] {
    In in[LANES];
    Out out[LANES];
    for (int k = 0; k < LANES; ++k) std::memcpy(&in[k], here.in[k], sizeof(In));
    all(in, out);
    for (int k = 0; k < LANES; ++k) std::memcpy(here.out[k], &out[k], sizeof(Out));
  });
  Out result;
  std::memcpy(&result, here.out[lane], sizeof result);
  return result;
}

inline void run_fiber() {
  grid->kernel(grid->parameters);
  --grid->live;
  grid->idle = 0;
  pause();
  std::abort();
}

inline std::uint64_t draw(std::uint64_t& state) {  // splitmix64
  std::uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

inline void schedule() {
  Grid& g = *grid;
  while (g.live && g.trouble.empty()) {
    if (g.first == g.ready.size()) {
      g.trouble = "no thread can go on";
    } else if (g.idle > 1000 * g.live) {
      g.trouble = "nothing happens but that threads look at flags which nobody sets";
    } else {
      if (g.seed) {
        // One block at a time is far ahead of the others, or far behind them.
        if (draw(g.seed) % 2048 == 0) g.favoured = draw(g.seed) % g.blocks.size();
        std::size_t drawn = 0;
        for (int tries = 0; tries < 16; ++tries) {
          drawn = g.first + draw(g.seed) % (g.ready.size() - g.first);
          if (g.fibers[g.ready[drawn]].block == g.favoured) break;
        }
        std::swap(g.ready[g.first], g.ready[drawn]);
      }
      g.current = g.ready[g.first++];
      if (g.first > 4096 && 2 * g.first > g.ready.size()) {
        g.ready.erase(g.ready.begin(), g.ready.begin() + g.first);
        g.first = 0;
      }
      Fiber& next = g.fibers[g.current];
      threadIdx.x = next.thread;
      blockIdx.x = next.block;
      g.scheduler.go(next.context);
    }
  }
  if (!g.live) return;
  // Who waits where, of one block, is what helps.
  for (const Fiber& fiber : g.fibers) {
    if (fiber.waits && g.trouble.find(';') == std::string::npos) {
      g.trouble += "; " + std::to_string(fiber.waits->waiting.size()) + " of " +
                   std::to_string(fiber.waits->size) + " threads of a " + fiber.waits->name + " (block " +
                   std::to_string(fiber.block) + ") are at " + place(*fiber.waits);
    }
  }
}

inline char* memory(std::size_t bytes) {
  void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return at == MAP_FAILED ? nullptr : static_cast<char*>(at);
}

inline void check_shared() {
  for (unsigned b = 0; b < gridDim.x && grid->trouble.empty(); ++b) {
    const char* begin = shared_of(b);
    for (std::size_t k = 0; k < CANARY; ++k) {
      if (begin[-1 - std::ptrdiff_t(k)] != 0x5a || begin[grid->shared_bytes + k] != 0x5a) {
        grid->trouble = "block " + std::to_string(b) + " writes past its " +
                        std::to_string(grid->shared_bytes) + " bytes of shared memory";
        return;
      }
    }
  }
}

// 0, or 1 and what is wrong in `trouble`.
inline int launch(void (*kernel)(const void*), const void* parameters, unsigned blocks, unsigned threads,
                  std::size_t shared_bytes, unsigned cluster, std::uint64_t seed, char* trouble,
                  std::size_t room) {
  Grid g{};
  grid = &g;
  g.parameters = parameters;
  g.kernel = kernel;
  g.shared_bytes = shared_bytes;
  g.shared_pitch = (shared_bytes + 127) / 128 * 128 + 2 * CANARY;
  g.cluster = cluster;
  g.seed = seed;
  gridDim.x = blocks;
  blockDim.x = threads;
  gridDim.y = gridDim.z = blockDim.y = blockDim.z = 1;
  const std::size_t count = std::size_t(blocks) * threads, pitch = STACK + GUARD;
  char* stacks = memory(count * pitch);
  g.shared = memory(blocks * g.shared_pitch);
  if (!stacks || !g.shared) {
    g.trouble = "there is no memory for the stacks of " + std::to_string(count) + " threads";
  } else {
    std::memset(g.shared, 0x5a, blocks * g.shared_pitch);
    for (unsigned b = 0; b < blocks; ++b) std::memset(shared_of(b), 0xff, shared_bytes);  // NaN
    g.blocks.assign(blocks, Group{"block"});
    for (Group& group : g.blocks) group.size = threads;
    g.clusters.assign(blocks / cluster, Group{"cluster"});
    for (Group& group : g.clusters) group.size = std::size_t(threads) * cluster;
    g.warps.resize(count / LANES);
    for (Warp& warp : g.warps) warp.group.size = LANES;
    g.fibers.resize(count);
    for (std::size_t k = 0; k < count; ++k) {
      Fiber& fiber = g.fibers[k];
      fiber.stack = stacks + k * pitch;
      mprotect(fiber.stack, GUARD, PROT_NONE);
      fiber.context.begin(fiber.stack + GUARD, run_fiber);
      fiber.block = k / threads;
      fiber.thread = k % threads;
      g.ready.push_back(k);
    }
    g.live = count;
    schedule();
    check_shared();
  }
  if (stacks) munmap(stacks, count * pitch);
  if (g.shared) munmap(g.shared, blocks * g.shared_pitch);
  grid = nullptr;
  std::snprintf(trouble, room, "%s", g.trouble.c_str());
  return g.trouble.empty() ? 0 : 1;
}

// A kernel as a function of the bytes of its parameters.
template <class A>
std::size_t parameter_bytes(void (*)(A)) {
  return sizeof(std::remove_cv_t<std::remove_reference_t<A>>);
}
template <class A>
auto argument_of(void (*)(A)) -> std::remove_cv_t<std::remove_reference_t<A>>;

}  // namespace shim

#define SHIM_KERNEL(NAME)                                                                              \
  extern "C" std::size_t shim_bytes_##NAME() { return shim::parameter_bytes(NAME); }                   \
  extern "C" int shim_launch_##NAME(const void* parameters, unsigned blocks, unsigned threads,         \
                                    std::size_t shared_bytes, unsigned cluster, std::uint64_t seed,    \
                                    char* trouble, std::size_t room) {                                 \
    const auto kernel = [](const void* p) {                                                            \
      NAME(*static_cast<const decltype(shim::argument_of(NAME))*>(p));                                 \
    };                                                                                                 \
    return shim::launch(kernel, parameters, blocks, threads, shared_bytes, cluster, seed, trouble, room); \
  }

// -- what device.cuh has --------------------------------------------------------------------------

namespace elman {

inline char* shared_memory() { return shim::shared_of(blockIdx.x); }

#define SHIM_LINE int line = __builtin_LINE()

inline void block_barrier(SHIM_LINE) {
  shim::meet(shim::grid->blocks[blockIdx.x], "block_barrier", line, [] {});
}
inline void warp_barrier(SHIM_LINE) { shim::meet(shim::warp().group, "warp_barrier", line, [] {}); }
template <class T>
T shuffle_xor(T x, int lanes, SHIM_LINE) {
  return shim::together<T>(x, "shuffle_xor", line, [lanes](const T* in, T* out) {
    for (int k = 0; k < shim::LANES; ++k) out[k] = in[k ^ lanes];
  });
}

inline void publish(unsigned* flag, unsigned value) {
  shim::grid->idle = 0;
  *static_cast<volatile unsigned*>(flag) = value;
}
inline unsigned observe(const unsigned* flag) {
  ++shim::grid->idle;
  shim::grid->ready.push_back(shim::grid->current);
  shim::pause();
  return *static_cast<const volatile unsigned*>(flag);
}
template <class T>
T load_fresh(const T* at) {
  return *at;
}
template <class T>
T load_streaming(const T* at) {
  return *at;
}

inline void cluster_barrier(SHIM_LINE) {
  shim::meet(shim::grid->clusters[blockIdx.x / shim::grid->cluster], "cluster_barrier", line, [] {});
}
// Nobody is let through before all have come to wait, which is later than the hardware asks for.
inline void cluster_arrive() {}
inline void cluster_wait(SHIM_LINE) { cluster_barrier(line); }
inline uint4 load_cluster(const uint4* at, unsigned rank) {
  const std::ptrdiff_t offset = reinterpret_cast<const char*>(at) - shared_memory();
  const unsigned block = blockIdx.x / shim::grid->cluster * shim::grid->cluster + rank;
  return *reinterpret_cast<const uint4*>(shim::shared_of(block) + offset);
}

// -- products of tiles, by PTX's layouts ----------------------------------------------------------

struct ShimOperands {
  float c[4];
  unsigned a[4], b[2];
};
struct ShimSums {
  float c[4];
};
// Row and column of an element of a lane's fragments: of a, [16][K]; of b, [K][8]; of c, [16][8].
struct ShimAt {
  int row, column;
};
template <int K>
ShimAt of_a(int lane, int i) {
  if constexpr (K == 16) {
    return {lane / 4 + (i / 2 % 2 ? 8 : 0), lane % 4 * 2 + i % 2 + (i >= 4 ? 8 : 0)};
  } else {
    return {lane / 4 + (i % 2 ? 8 : 0), lane % 4 + (i >= 2 ? 4 : 0)};
  }
}
template <int K>
ShimAt of_b(int lane, int i) {
  if constexpr (K == 16) {
    return {lane % 4 * 2 + i % 2 + (i >= 2 ? 8 : 0), lane / 4};
  } else {
    return {lane % 4 + 4 * i, lane / 4};
  }
}
inline ShimAt of_c(int lane, int i) { return {lane / 4 + (i >= 2 ? 8 : 0), lane % 4 * 2 + i % 2}; }

template <class O>
float shim_element(const unsigned* registers, int i) {
  if constexpr (O::K == 16) {
    return O::widen(static_cast<unsigned short>(registers[i / 2] >> (i % 2 ? 16 : 0)));
  } else {
    return __uint_as_float(registers[i] & 0xffffe000u);  // the hardware reads 19 bits
  }
}
template <class O>
void shim_multiply(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], int line) {
  constexpr int K = O::K;
  ShimOperands mine;
  std::memcpy(mine.c, c, sizeof c);
  std::memcpy(mine.a, a, sizeof a);
  std::memcpy(mine.b, b, sizeof b);
  const auto sums = shim::together<ShimSums>(mine, "multiply", line, [](const ShimOperands* in, ShimSums* out) {
    float left[16][K], right[K][8];
    for (int lane = 0; lane < shim::LANES; ++lane) {
      for (int i = 0; i < K / 2; ++i) {
        const ShimAt at = of_a<K>(lane, i);
        left[at.row][at.column] = shim_element<O>(in[lane].a, i);
      }
      for (int i = 0; i < K / 4; ++i) {
        const ShimAt at = of_b<K>(lane, i);
        right[at.row][at.column] = shim_element<O>(in[lane].b, i);
      }
    }
    for (int lane = 0; lane < shim::LANES; ++lane) {
      for (int i = 0; i < 4; ++i) {
        const ShimAt at = of_c(lane, i);
        float sum = in[lane].c[i];
        for (int k = 0; k < K; ++k) sum += left[at.row][k] * right[k][at.column];
        out[lane].c[i] = sum;
      }
    }
  });
  std::memcpy(c, sums.c, sizeof c);
}

#define SHIM_MULTIPLY(TYPE)                                                                  \
  static void multiply(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], SHIM_LINE) { \
    shim_multiply<TYPE>(c, a, b, line);                                                      \
  }

struct Bf16 {
  using storage = unsigned short;
  static constexpr int K = 16;
  static storage round(float x) {
    const unsigned u = __float_as_uint(x);
    if (x != x) return 0x7fff;
    return static_cast<storage>((u + 0x7fffu + (u >> 16 & 1)) >> 16);
  }
  static float widen(storage x) { return __uint_as_float(unsigned(x) << 16); }
  SHIM_MULTIPLY(Bf16)
};
struct Fp16 {
  using storage = unsigned short;
  static constexpr int K = 16;
  static storage round(float x) {
    if (x != x) return 0x7fff;
    const unsigned sign = __float_as_uint(x) >> 16 & 0x8000;
    const float size = std::fabs(x);
    if (size >= 65520.0f) return static_cast<storage>(sign | 0x7c00);
    // One unit of the last place of what it becomes: at least 2^-24, the smallest number there is.
    const int exponent = size < 6.103515625e-5f ? -14 : std::ilogb(size);
    const unsigned units = static_cast<unsigned>(std::nearbyint(std::ldexp(double(size), 10 - exponent)));
    return static_cast<storage>(sign | ((unsigned(exponent + 14) << 10) + units));
  }
  static float widen(storage x) {
    const int exponent = x >> 10 & 31, mantissa = x & 1023;
    const float sign = x & 0x8000 ? -1.0f : 1.0f;
    if (exponent == 31) return mantissa ? NAN : sign * INFINITY;
    return sign * (exponent ? std::ldexp(1024.0f + mantissa, exponent - 25) : std::ldexp(float(mantissa), -24));
  }
  SHIM_MULTIPLY(Fp16)
};
struct Tf32 {
  using storage = float;
  static constexpr int K = 8;
  static storage round(float x) {
    const unsigned u = __float_as_uint(x);
    if ((u & 0x7f800000u) == 0x7f800000u) return x;
    return __uint_as_float((u + 0x1000u) & 0xffffe000u);  // ties away from zero
  }
  static float widen(storage x) { return x; }
  SHIM_MULTIPLY(Tf32)
};

}  // namespace elman
