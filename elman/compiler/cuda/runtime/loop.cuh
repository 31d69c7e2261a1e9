// What a kernel of the loop over time is made of: meetings of blocks, and products of their rows.
//
// The blocks of a group share the same rows of the batch, ROWS of them, and divide the units among
// them: each has PARTS-th of every width. What one block writes and another reads goes through
// memory that no first-level cache holds, with a meeting in between; or, where the blocks are a
// CLUSTER, what products read stays in the shared memory of the block that wrote it.
#pragma once
#include "device.cuh"

namespace elman {

constexpr int kWarps = THREADS / 32;

// The meetings of a group's blocks: each tells how often it has arrived in a place of its own, so
// that none waits for another's turn at an atomic.
struct Meeting {
  unsigned* arrived;  // of each block of the group
  unsigned part;
  unsigned count;

  __device__ void arrive() {
#if CLUSTER
    cluster_arrive();
#else
    block_barrier();
    ++count;
    if (threadIdx.x == 0) publish(arrived + part, count);
#endif
  }
  __device__ void wait() const {
#if CLUSTER
    cluster_wait();
#else
    for (unsigned i = threadIdx.x; i < PARTS; i += THREADS)
      while (observe(arrived + i) < count) {
      }
    block_barrier();
#endif
  }
};

// A piece of a source of products: in the shared memory of the cluster's block that wrote it, or in
// memory that all blocks see.
__device__ inline uint4 fetch(const uint4* at, unsigned rank) {
#if CLUSTER
  return load_cluster(at, rank);
#else
  return load_fresh(at);
#endif
}

// -- products -----------------------------------------------------------------------------------
//
// A block multiplies ROWS rows of a source by a slice of a matrix, with the depth divided among WK of
// its warps. Sources and matrices lie as the tensor cores take them: by tiles of 16 rows and kDepth of
// the depth, each lane's part in one piece.

template <class O>
struct Fragments {
  using Storage = typename O::storage;
  static constexpr int kDepth = O::K;
  static constexpr int kTile = 16 * kDepth;
  using A = uint4;
  using B = uint2;
  static constexpr int kColumns = 32;  // B's of a tile of 8 columns

  // Where element (row, k) of a tile of rows lies.
  static __device__ int at(int row, int k) {
    constexpr int per = sizeof(Storage) == 2 ? 2 : 1;  // elements of a register
    const int lane = (row & 7) * 4 + (k / per & 3);
    const int reg = (row >> 3 & 1) + 2 * (k / (4 * per));
    return (lane * 4 + reg) * per + k % per;
  }
  static __device__ A load(const Storage* tile, int lane, unsigned rank) {
    return fetch(reinterpret_cast<const uint4*>(tile) + lane, rank);
  }
  static __device__ int b_of(int lane) { return lane; }
  // The k and the column of the i-th element that a lane holds of B.
  static constexpr int kElements = 8 / sizeof(Storage);
  static __device__ void element(int place, int i, int& k, int& column) {
    constexpr int per = sizeof(Storage) == 2 ? 2 : 1;
    k = (place & 3) * per + i % per + i / per * 4 * per;
    column = place >> 2;
  }
  static __device__ void multiply(real (&c)[4], const A& a, const B& b) {
    const unsigned x[4] = {a.x, a.y, a.z, a.w}, y[2] = {b.x, b.y};
    O::multiply(c, x, y);
  }
  static __device__ int row(int i, int lane) { return (lane >> 2) + (i >> 1) * 8; }
  static __device__ int column(int i, int lane) { return (lane & 3) * 2 + (i & 1); }
};

// Without tensor cores: a lane has four rows and one column of a tile.
template <class T>
struct Scalars {
  using Storage = T;
  static constexpr int kDepth = 1;
  static constexpr int kTile = 16;
  struct A {
    T row[4];
  };
  using B = T;
  static constexpr int kColumns = 8;
  static constexpr int kElements = 1;

  static __device__ int at(int row, int k) { return row; }
  static __device__ A load(const T* tile, int lane, unsigned rank) {
    A a;
    const T* from = tile + (lane >> 3) * 4;
    const uint4* words = reinterpret_cast<const uint4*>(from);
    uint4* into = reinterpret_cast<uint4*>(&a);
#pragma unroll
    for (int i = 0; i < int(sizeof(A) / 16); ++i) into[i] = fetch(words + i, rank);
    return a;
  }
  static __device__ int b_of(int lane) { return lane & 7; }
  static __device__ void element(int place, int i, int& k, int& column) {
    k = 0;
    column = place;
  }
  static __device__ void multiply(real (&c)[4], const A& a, const B& b) {
#pragma unroll
    for (int i = 0; i < 4; ++i) c[i] += a.row[i] * b;
  }
  static __device__ int row(int i, int lane) { return (lane >> 3) * 4 + i; }
  static __device__ int column(int i, int lane) { return lane & 7; }
};
template <>
struct Fragments<Float> : Scalars<float> {};
template <>
struct Fragments<Double> : Scalars<double> {};

using F = Fragments<OPERAND>;
using Storage = F::Storage;

// Where element (row, k) of a source lies.
__device__ inline long exchanged(int row, int k) {
  return (long(k / F::kDepth) * (ROWS / 16) + row / 16) * F::kTile + F::at(row % 16, k % F::kDepth);
}

// DEPTH by COLUMNS of a matrix, for warps of which WM divide the rows, WN the columns, WK the depth.
// Of each WIDTH of the source, blocks have written UNITS in turn.
template <int DEPTH, int COLUMNS, int WM, int WN, int WK, int WIDTH, int UNITS>
struct Product {
  static constexpr int kDeep = (DEPTH + F::kDepth - 1) / F::kDepth;
  static constexpr int kWide = (COLUMNS + 7) / 8;
  static constexpr int kHigh = ROWS / 16;
  static constexpr int M = (kHigh + WM - 1) / WM, N = (kWide + WN - 1) / WN;
  static constexpr int kLine = kWide * 8 + 2;  // numbers of a row of a sum
  static constexpr int kSums = WK * ROWS * kLine;
  static constexpr int kPlaces = kDeep * kWide * F::kColumns;  // B's
  static constexpr int kAhead = 16 / M > 8 ? 8 : 16 / M;
  static_assert(WM * WN * WK == kWarps, "each warp has its part");

  // The slice of the matrix, of which column(c) is the c-th column, or −1 for none.
  template <class Column>
  static __device__ void pack(F::B* packed, const real* matrix, long down, long across, Column column) {
    constexpr int kBatch = 8;  // that are loaded before the first is stored
    for (int first = threadIdx.x; first < kPlaces; first += kBatch * THREADS) {
      real read[kBatch][F::kElements];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int p = first + i * THREADS, tile = p / F::kColumns;
#pragma unroll
        for (int j = 0; j < F::kElements; ++j) {
          int k, c;
          F::element(p % F::kColumns, j, k, c);
          k += tile / kWide * F::kDepth;
          c = column(tile % kWide * 8 + c);
          const bool inside = p < kPlaces && k < DEPTH && c >= 0;
          read[i][j] = inside ? load_streaming(matrix + k * down + c * across) : real(0);
        }
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        Storage elements[F::kElements];
#pragma unroll
        for (int j = 0; j < F::kElements; ++j) elements[j] = OPERAND::round(read[i][j]);
        if (first + i * THREADS < kPlaces)
          packed[first + i * THREADS] = *reinterpret_cast<F::B*>(elements);
      }
    }
  }

  // Where the k-th tile of a source is, in which block.
  static __device__ long place(int k) {
    const int unit = k * F::kDepth;
    return CLUSTER ? (unit / WIDTH * UNITS + unit % WIDTH % UNITS) / F::kDepth : k;
  }
  static __device__ unsigned rank(int k) { return k * F::kDepth % WIDTH / UNITS; }

  // The sums of each part of the depth, to be added up by whoever reads them.
  static __device__ void run(const Storage* source, const F::B* packed, real* sums) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int wk = warp % WK, wn = warp / WK % WN, wm = warp / (WK * WN);
    real c[M][N][4];
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) c[m][n][i] = 0;
    constexpr int kEach = (kDeep + WK - 1) / WK;  // tiles of the depth of a warp
#pragma unroll
    for (int first = 0; first < kEach; first += kAhead) {
      typename F::A a[kAhead][M];
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int k = (first + i) * WK + wk;
        if (first + i < kEach && k < kDeep)
#pragma unroll
          for (int m = 0; m < M; ++m)
            if (wm * M + m < kHigh)
              a[i][m] = F::load(source + (place(k) * kHigh + wm * M + m) * F::kTile, lane, rank(k));
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        const int k = (first + i) * WK + wk;
        if (first + i < kEach && k < kDeep)
#pragma unroll
          for (int n = 0; n < N; ++n)
            if (wn * N + n < kWide) {
              const typename F::B b = packed[(k * kWide + wn * N + n) * F::kColumns + F::b_of(lane)];
#pragma unroll
              for (int m = 0; m < M; ++m)
                if (wm * M + m < kHigh) F::multiply(c[m][n], a[i][m], b);
            }
      }
    }
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int n = 0; n < N; ++n)
        if (wm * M + m < kHigh && wn * N + n < kWide)
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const int row = (wm * M + m) * 16 + F::row(i, lane), column = (wn * N + n) * 8 + F::column(i, lane);
            sums[(wk * ROWS + row) * kLine + column] = c[m][n][i];
          }
  }

  static __device__ real sum(const real* sums, int row, int column) {
    real total = 0;
#pragma unroll
    for (int k = 0; k < WK; ++k) total += sums[(k * ROWS + row) * kLine + column];
    return total;
  }
};

}  // namespace elman
