// A vector of reals, as wide as the machine has, and how a row's units are gone through by vectors.
//
// One source for AVX-512, AVX2, NEON and plain C++: the compiler's own vector types. The functions
// that a step is made of are those of functions.hpp. ELMAN_REAL is float or double.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace elman {

using real = ELMAN_REAL;
using integer = std::conditional_t<sizeof(real) == 4, std::int32_t, std::int64_t>;

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
constexpr long N = kBytes / sizeof(real);  // units in a vector

typedef real V __attribute__((vector_size(kBytes)));
typedef integer I __attribute__((vector_size(kBytes)));
using Mask = I;  // in every lane 0, or −1 for true

#define ELMAN_INLINE inline __attribute__((always_inline))

ELMAN_INLINE V splat(real x) { return x - V{}; }  // x − 0 is x, −0 too
ELMAN_INLINE V load(const real* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
// The first n numbers, fewer than a vector, and zeros.
ELMAN_INLINE V load_first(const real* p, long n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(real) == 4) return (V)_mm512_maskz_loadu_ps((1u << n) - 1, p);
  else return (V)_mm512_maskz_loadu_pd((1u << n) - 1, p);
#else
  V v = {};
  std::memcpy(&v, p, n * sizeof(real));
  return v;
#endif
}
ELMAN_INLINE void store(real* p, V v) { std::memcpy(p, &v, sizeof v); }

// Keep a vector in a register: otherwise compilers may load it again for every use.
ELMAN_INLINE void keep(V& v) {
#if defined(__x86_64__)
  asm("" : "+v"(v));
#elif defined(__aarch64__)
  asm("" : "+w"(v));
#endif
}
ELMAN_INLINE I bits(V v) { return (I)v; }
ELMAN_INLINE V reals(I i) { return (V)i; }
ELMAN_INLINE V where(I mask, V a, V b) { return mask ? a : b; }
ELMAN_INLINE V where(I mask, real a, V b) { return mask ? splat(a) : b; }
ELMAN_INLINE V real_of(I mask) { return mask ? splat(1) : splat(0); }
ELMAN_INLINE I logical_not(I mask) { return ~mask; }

// Two vectors side by side. A function of a value is one long chain of operations, each waiting
// for the one before; two chains, operation by operation, keep the machine busy.
struct IPair {
  I a, b;
};
struct Pair {
  V a, b;
};
#define ELMAN_BOTH(OP)                                                                    \
  ELMAN_INLINE Pair operator OP(Pair x, Pair y) { return {x.a OP y.a, x.b OP y.b}; }      \
  ELMAN_INLINE Pair operator OP(Pair x, V y) { return {x.a OP y, x.b OP y}; }             \
  ELMAN_INLINE Pair operator OP(V x, Pair y) { return {x OP y.a, x OP y.b}; }             \
  ELMAN_INLINE Pair operator OP(Pair x, real y) { return {x.a OP y, x.b OP y}; }          \
  ELMAN_INLINE Pair operator OP(real x, Pair y) { return {x OP y.a, x OP y.b}; }
ELMAN_BOTH(+) ELMAN_BOTH(-) ELMAN_BOTH(*) ELMAN_BOTH(/)
#undef ELMAN_BOTH
#define ELMAN_BOTH(OP)                                                                    \
  ELMAN_INLINE IPair operator OP(Pair x, Pair y) { return {x.a OP y.a, x.b OP y.b}; }     \
  ELMAN_INLINE IPair operator OP(Pair x, V y) { return {x.a OP y, x.b OP y}; }            \
  ELMAN_INLINE IPair operator OP(V x, Pair y) { return {x OP y.a, x OP y.b}; }            \
  ELMAN_INLINE IPair operator OP(Pair x, real y) { return {x.a OP y, x.b OP y}; }
ELMAN_BOTH(<) ELMAN_BOTH(<=) ELMAN_BOTH(>) ELMAN_BOTH(>=) ELMAN_BOTH(==) ELMAN_BOTH(!=)
#undef ELMAN_BOTH
#define ELMAN_BOTH(OP)                                                                    \
  ELMAN_INLINE IPair operator OP(IPair x, IPair y) { return {x.a OP y.a, x.b OP y.b}; }   \
  ELMAN_INLINE IPair operator OP(IPair x, I y) { return {x.a OP y, x.b OP y}; }           \
  ELMAN_INLINE IPair operator OP(I x, IPair y) { return {x OP y.a, x OP y.b}; }
ELMAN_BOTH(&) ELMAN_BOTH(|) ELMAN_BOTH(^) ELMAN_BOTH(+) ELMAN_BOTH(-)
#undef ELMAN_BOTH
ELMAN_INLINE IPair operator+(IPair x, integer y) { return {x.a + y, x.b + y}; }
ELMAN_INLINE IPair operator<<(IPair x, int y) { return {x.a << y, x.b << y}; }
ELMAN_INLINE IPair operator>>(IPair x, int y) { return {x.a >> y, x.b >> y}; }
ELMAN_INLINE IPair operator~(IPair x) { return {~x.a, ~x.b}; }
ELMAN_INLINE Pair operator-(Pair x) { return {-x.a, -x.b}; }
ELMAN_INLINE IPair bits(Pair x) { return {bits(x.a), bits(x.b)}; }
ELMAN_INLINE Pair reals(IPair x) { return {reals(x.a), reals(x.b)}; }
ELMAN_INLINE Pair real_of(IPair x) { return {real_of(x.a), real_of(x.b)}; }
ELMAN_INLINE IPair logical_not(IPair x) { return ~x; }
ELMAN_INLINE V first(V x) { return x; }
ELMAN_INLINE V first(Pair x) { return x.a; }
ELMAN_INLINE V second(V x) { return x; }
ELMAN_INLINE V second(Pair x) { return x.b; }
template <class X, class Y>
ELMAN_INLINE Pair where(IPair mask, X x, Y y) {
  return {where(mask.a, first(x), first(y)), where(mask.b, second(x), second(y))};
}
template <class Y>
ELMAN_INLINE Pair where(IPair mask, real x, Y y) {
  return where(mask, splat(x), y);
}
ELMAN_INLINE Pair where(I mask, Pair x, Pair y) { return where(IPair{mask, mask}, x, y); }
ELMAN_INLINE Pair where(I mask, Pair x, V y) { return where(IPair{mask, mask}, x, y); }
ELMAN_INLINE Pair where(I mask, V x, Pair y) { return where(IPair{mask, mask}, x, y); }

// Two vectors of units, at `j`.
struct Double {
  using Value = Pair;
  long j;
  ELMAN_INLINE Pair load(const real* p) const { return {elman::load(p + j), elman::load(p + j + N)}; }
  ELMAN_INLINE void store(real* p, Pair v) const {
    elman::store(p + j, v.a);
    elman::store(p + j + N, v.b);
  }
  ELMAN_INLINE void store(real* p, V v) const { store(p, Pair{v, v}); }
  ELMAN_INLINE Pair keep(Pair v, real) const { return v; }
  ELMAN_INLINE Pair keep(V v, real) const { return {v, v}; }
};

// A whole vector of units, at `j`.
struct Whole {
  using Value = V;
  long j;
  ELMAN_INLINE V load(const real* p) const { return elman::load(p + j); }
  ELMAN_INLINE void store(real* p, V v) const { elman::store(p + j, v); }
  ELMAN_INLINE V keep(V v, real) const { return v; }
};

// The last `n` units of a row, fewer than a vector.
struct Rest {
  using Value = V;
  long j;
  long n;
  ELMAN_INLINE V load(const real* p) const {
    V v = {};
    std::memcpy(&v, p + j, n * sizeof(real));
    return v;
  }
  ELMAN_INLINE void store(real* p, V v) const { std::memcpy(p + j, &v, n * sizeof(real)); }
  // `v`, with `other` in the lanes past the end.
  ELMAN_INLINE V keep(V v, real other) const {
    real t[N];
    elman::store(t, v);
    for (long k = n; k < N; ++k) t[k] = other;
    return elman::load(t);
  }
};

// body(at) for the units from `begin` to `end`.
template <class Body>
ELMAN_INLINE void each(long begin, long end, Body body) {
  long j = begin;
  for (; j + 2 * N <= end; j += 2 * N) body(Double{j});
  if (j + N <= end) {
    body(Whole{j});
    j += N;
  }
  if (j < end) body(Rest{j, end - j});
}

// A row's sum and greatest number: what there is so far and more of the row, and, at its end, of all
// lanes, by halves: a chain of a logarithm's length.
ELMAN_INLINE V row_sum(V total, V x) { return total + x; }
ELMAN_INLINE V row_sum(V total, Pair x) { return (total + x.a) + x.b; }
ELMAN_INLINE real row_sum(V v) {
  real t[N];
  store(t, v);
#pragma GCC unroll 4
  for (long half = N / 2; half > 0; half /= 2)
#pragma GCC unroll 8
    for (long k = 0; k < half; ++k) t[k] += t[k + half];
  return t[0];
}
ELMAN_INLINE real greater(real a, real b) { return a > b || a != a ? a : b; }  // NaN wins
ELMAN_INLINE V greater(V a, V b) { return where((a > b) | (a != a), a, b); }
ELMAN_INLINE V row_max(V best, V x) { return greater(best, x); }
ELMAN_INLINE V row_max(V best, Pair x) { return greater(greater(best, x.a), x.b); }
ELMAN_INLINE real row_max(V v) {
  real t[N];
  store(t, v);
#pragma GCC unroll 4
  for (long half = N / 2; half > 0; half /= 2)
#pragma GCC unroll 8
    for (long k = 0; k < half; ++k) t[k] = greater(t[k], t[k + half]);
  return t[0];
}

template <class F>
ELMAN_INLINE V lanes(V v, F f) {
  for (long k = 0; k < N; ++k) v[k] = f(v[k]);
  return v;
}
template <class F>
ELMAN_INLINE Pair lanes(Pair v, F f) {
  return {lanes(v.a, f), lanes(v.b, f)};
}
template <class F>
ELMAN_INLINE V lanes(V v, V w, F f) {
  for (long k = 0; k < N; ++k) v[k] = f(v[k], w[k]);
  return v;
}
template <class X, class Y, class F>
ELMAN_INLINE Pair lanes(X v, Y w, F f) {
  return {lanes(first(v), first(w), f), lanes(second(v), second(w), f)};
}

ELMAN_INLINE V sqrt(V x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(real) == 4) return (V)_mm512_sqrt_ps((__m512)x);
  else return (V)_mm512_sqrt_pd((__m512d)x);
#else
  return lanes(x, [](real v) { return std::sqrt(v); });
#endif
}
ELMAN_INLINE Pair sqrt(Pair x) { return {sqrt(x.a), sqrt(x.b)}; }

// 1 / b and a / b for finite b: an estimate and a step of Newton's are four times as fast as a division.
ELMAN_INLINE V estimated_reciprocal(V b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(real) == 4) return (V)_mm512_rcp14_ps((__m512)b);
#endif
  return b;
}
ELMAN_INLINE Pair estimated_reciprocal(Pair b) {
  return {estimated_reciprocal(b.a), estimated_reciprocal(b.b)};
}
template <class X>
ELMAN_INLINE X inverse(X b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(real) == 4) {
    const X estimate = estimated_reciprocal(b);
    return estimate * (real(2) - b * estimate);
  }
#endif
  return real(1) / b;
}
template <class X>
ELMAN_INLINE X quotient(X a, X b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(real) == 4) return a * inverse(b);
#endif
  return a / b;
}

}  // namespace elman

#include "functions.hpp"
