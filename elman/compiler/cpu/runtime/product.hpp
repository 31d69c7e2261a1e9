// Rows times a packed matrix: the one product of a step.
//
// A matrix (K, columns) is packed as [block of columns][k][one or two vectors]. Every element of a
// product is summed over k in order, by pieces that only depend on K, whatever the number of rows or
// threads: results do not depend on them.
#pragma once
#include <algorithm>
#include <utility>

#include "vector.hpp"

namespace elman {

#if defined(__AVX512F__)
constexpr int kRegisters = 32;
constexpr int kRows = 12;  // 12 × 2 accumulators
#define ELMAN_ROWS 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
#elif defined(__aarch64__)
constexpr int kRegisters = 32;
constexpr int kRows = 8;  // 8 × 2 accumulators: some registers hold the numbers of `a`
#define ELMAN_ROWS 1, 2, 3, 4, 5, 6, 7, 8
#else
constexpr int kRegisters = 16;
constexpr int kRows = 6;  // 6 × 2 accumulators
#define ELMAN_ROWS 1, 2, 3, 4, 5, 6
#endif
constexpr long kBlock = 2 * N;  // columns in a block
constexpr long kPiece = 1024;   // of k at a time, so that a block stays in the cache for all rows

inline long blocks(long columns) { return (columns + kBlock - 1) / kBlock; }
inline long packed_size(long k, long columns) { return blocks(columns) * kBlock * k; }

// A square of N x N from rows that lie `row` apart to rows that lie kBlock apart, turned. In every
// round, rows `s` apart exchange halves of their groups of 2 s.
#if defined(__has_builtin) && __has_builtin(__builtin_shufflevector)
template <long S, bool High, long... L>
ELMAN_INLINE V exchanged(V a, V b, std::integer_sequence<long, L...>) {
  return __builtin_shufflevector(a, b, ((L & S) ? N + (L & ~S) + (High ? S : 0) : L + (High ? S : 0))...);
}
template <long S>
ELMAN_INLINE void exchange(V* v) {
  constexpr auto lanes = std::make_integer_sequence<long, N>{};
#pragma GCC unroll 16
  for (long i = 0; i < N; ++i)
    if (!(i & S)) {
      const V a = v[i], b = v[i + S];
      v[i] = exchanged<S, false>(a, b, lanes);
      v[i + S] = exchanged<S, true>(a, b, lanes);
    }
  if constexpr (S > 1) exchange<S / 2>(v);
}
inline void turn(const real* in, long row, real* out) {
  V v[N];
#pragma GCC unroll 16
  for (long i = 0; i < N; ++i) v[i] = load(in + i * row);
  exchange<N / 2>(v);
#pragma GCC unroll 16
  for (long i = 0; i < N; ++i) store(out + i * kBlock, v[i]);
}
#else
inline void turn(const real* in, long row, real* out) {
  for (long i = 0; i < N; ++i)
    for (long j = 0; j < N; ++j) out[j * kBlock + i] = in[i * row + j];
}
#endif

// Pack the blocks from `first` to `last` of the matrix whose element (k, c) lies at
// w[k * stride_k + c * stride_c]; columns past the end are zero.
inline void pack(const real* w, long stride_k, long stride_c, long depth, long columns,
                 real* packed, long first, long last) {
  for (long b = first; b < last; ++b) {
    real* out = packed + b * kBlock * depth;
    const real* in = w + b * kBlock * stride_c;
    const long n = columns - b * kBlock < kBlock ? columns - b * kBlock : kBlock;
    if (n < kBlock) std::memset(out, 0, sizeof(real) * kBlock * depth);
    if (stride_c == 1 && n == kBlock) {
      for (long k = 0; k < depth; ++k) std::memcpy(out + k * kBlock, in + k * stride_k, kBlock * sizeof(real));
    } else if (stride_c == 1) {
      for (long k = 0; k < depth; ++k) std::memcpy(out + k * kBlock, in + k * stride_k, n * sizeof(real));
    } else {
      // By squares, so that both sides stay in the cache.
      for (long k0 = 0; k0 < depth; k0 += N) {
        const long k1 = k0 + N < depth ? k0 + N : depth;
        long c = 0;
        if (stride_k == 1 && k1 - k0 == N)
          for (; c + N <= n; c += N) turn(in + c * stride_c + k0, stride_c, out + k0 * kBlock + c);
        for (; c < n; ++c)
          for (long k = k0; k < k1; ++k) out[k * kBlock + c] = in[c * stride_c + k * stride_k];
      }
    }
  }
}

// R rows times B blocks of two vectors that lie `next` apart, into whole blocks of `out`. Row r of `a` is at
// a + r * row, or, where it is Packed, element (r, k) is at a[k * kRows + r]. The rows of
// `more` are added, unless that is null: last, so that there was time to fetch them.
template <int R, int B, bool Packed>
void rows_times_blocks(const real* a, long row, const real* packed, long next, long depth, real* out,
                       long out_row, const real* more, long more_row) {
  V sum[R][2 * B];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int c = 0; c < 2 * B; ++c) sum[r][c] = V{};
  for (long k = 0; k < depth; ++k) {
    V w[2 * B];
#pragma GCC unroll 16
    for (int c = 0; c < 2 * B; ++c) {
      w[c] = load(packed + (c / 2) * next + k * kBlock + (c % 2) * N);
      if (R > 1 && 2 * B * (R + 1) < kRegisters) keep(w[c]);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const V x = splat(Packed ? a[k * kRows + r] : a[r * row + k]);
#pragma GCC unroll 16
      for (int c = 0; c < 2 * B; ++c) sum[r][c] += x * w[c];
    }
  }
  if (more)
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
      for (int c = 0; c < 2 * B; ++c) sum[r][c] += load(more + r * more_row + c * N);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int c = 0; c < 2 * B; ++c) store(out + r * out_row + c * N, sum[r][c]);
}

// How many blocks at a time keep the multipliers busy with so few rows.
constexpr int at_once(int rows) { return kRows < 8 ? (rows <= 1 ? 4 : rows <= 3 ? 2 : 1)
                                                   : (rows <= 2 ? 4 : rows <= 5 ? 2 : 1); }

// R rows times the blocks from `first` to `last`, into `out` or, with `add`, to what is there; of
// the last block, only the columns that there are.
template <int R, int B = at_once(R)>
void some_rows(const real* a, long row, const real* packed, long next, long depth, real* out,
               long out_row, long columns, long first, long last, bool add) {
  const long whole = std::min(last, columns / kBlock);
  for (; first + B <= whole; first += B) {
    real* to = out + first * kBlock;
    rows_times_blocks<R, B, false>(a, row, packed + first * next, next, depth, to, out_row,
                                   add ? to : nullptr, out_row);
  }
  if constexpr (B > 1) {
    if (first < last)
      some_rows<R, B / 2>(a, row, packed, next, depth, out, out_row, columns, first, last, add);
  } else if (first < last) {
    real tile[R * kBlock];
    rows_times_blocks<R, 1, false>(a, row, packed + first * next, next, depth, tile, kBlock, nullptr, 0);
    for (int r = 0; r < R; ++r) {
      real* to = out + r * out_row + first * kBlock;
      for (long c = 0; c < columns - first * kBlock; ++c)
        to[c] = add ? tile[r * kBlock + c] + to[c] : tile[r * kBlock + c];
    }
  }
}

// -- a matrix as it lies in memory ------------------------------------------------------------------
//
// For one step of a stream: packing would read the weights once more, and a packed copy would have to
// be told of every change. Column c of the matrix is the row of numbers at w + c * w_row. Every product
// is summed lane by lane over k, then over the lanes by halves, whatever the other rows and columns.

// Lane i of the result is the sum of v[i].
#if defined(__has_builtin) && __has_builtin(__builtin_shufflevector)
template <long S>
ELMAN_INLINE V sum_halves(V* v) {
  constexpr auto lanes = std::make_integer_sequence<long, N>{};
#pragma GCC unroll 16
  for (long i = 0; i < S; ++i) v[i] = exchanged<S, false>(v[i], v[i + S], lanes) + exchanged<S, true>(v[i], v[i + S], lanes);
  if constexpr (S > 1) return sum_halves<S / 2>(v);
  return v[0];
}
ELMAN_INLINE V sums(V* v) { return sum_halves<N / 2>(v); }
#else
ELMAN_INLINE V sums(V* v) {
  V out = {};
  for (long i = 0; i < N; ++i) out[i] = row_sum(v[i]);
  return out;
}
#endif

constexpr long kAhead = 8 * N;
constexpr int kSums = kRegisters == 32 ? 16 : 8;  // at once: as many chains of sums keep the multipliers busy

// R rows times C columns, of which there are `count`.
template <int R, int C>
void dots(const real* a, long a_row, const real* w, long w_row, long depth, real* out, long out_row, long count) {
  V sum[R * C];
#pragma GCC unroll 16
  for (int i = 0; i < R * C; ++i) sum[i] = V{};
  const real* column[C];
#pragma GCC unroll 16
  for (int c = 0; c < C; ++c) column[c] = w + (c < count ? c : count - 1) * w_row;
  const auto add = [&](long k, auto get) {
    if (depth > kAhead) {  // the machine sees no pattern in so many rows at a time: on to the next columns
      const long ahead = k + kAhead < depth ? kAhead : kAhead - depth + C * w_row;
#pragma GCC unroll 16
      for (int c = 0; c < C; ++c) __builtin_prefetch(column[c] + k + ahead);
    }
    V x[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) x[r] = get(a + r * a_row + k);
#pragma GCC unroll 16
    for (int c = 0; c < C; ++c) {
      const V y = get(column[c] + k);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) sum[r * C + c] += x[r] * y;
    }
  };
  long k = 0;
  for (; k + N <= depth; k += N) add(k, [](const real* p) { return load(p); });
  if (k < depth) add(k, [n = depth - k](const real* p) { return load_first(p, n); });
  real all[R * C];
#pragma GCC unroll 16
  for (int i = 0; i < R * C; i += N) store(all + i, sums(sum + i));
  for (int r = 0; r < R; ++r) {
    if (count >= C)
      std::memcpy(out + r * out_row, all + r * C, C * sizeof(real));
    else
      for (long c = 0; c < count; ++c) out[r * out_row + c] = all[r * C + c];
  }
}

template <int R>
void some_dots(const real* a, long a_row, const real* w, long w_row, long depth, real* out, long out_row, long count) {
  constexpr int C = kSums / R;
  for (long c = 0; c < count; c += C) dots<R, C>(a, a_row, w + c * w_row, w_row, depth, out + c, out_row, count - c);
}

// Rows of `a` times the matrix whose columns lie in the rows of `w`.
inline void rows_times_rows(const real* a, long a_row, long rows, const real* w, long w_row, long depth,
                            real* out, long out_row, long columns) {
  for (long c = 0; c < columns; c += kSums) {  // these stay in the first cache for all rows
    const long count = std::min<long>(kSums, columns - c);
    for (long r = 0; r < rows;) {
      const auto some = rows - r >= 4 ? some_dots<4> : rows - r >= 2 ? some_dots<2> : some_dots<1>;
      some(a + r * a_row, a_row, w + c * w_row, w_row, depth, out + r * out_row + c, out_row, count);
      r += rows - r >= 4 ? 4 : rows - r >= 2 ? 2 : 1;
    }
  }
}

using SomeRows = void (*)(const real*, long, const real*, long, long, real*, long, long, long, long, bool);
template <int... R>
constexpr SomeRows kSomeRows[] = {nullptr, some_rows<R, at_once(R)>...};

using Tile = void (*)(const real*, long, const real*, long, long, real*, long, const real*, long);
template <bool Packed, int... R>
constexpr Tile kTiles[] = {nullptr, rows_times_blocks<R, 1, Packed>...};

inline SomeRows kernel_for(long rows) { return kSomeRows<ELMAN_ROWS>[rows]; }
template <bool Packed>
Tile tile_for(long rows) {
  return kTiles<Packed, ELMAN_ROWS>[rows];
}
#undef ELMAN_ROWS

}  // namespace elman
