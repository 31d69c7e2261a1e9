// A vector of reals, as wide as the machine has, and the functions that a step is made of.
//
// One source for AVX-512, AVX2, NEON and plain C++: the compiler's own vector types.
// ELMAN_REAL is float or double.
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
  long j;
  ELMAN_INLINE V load(const real* p) const { return elman::load(p + j); }
  ELMAN_INLINE void store(real* p, V v) const { elman::store(p + j, v); }
  ELMAN_INLINE V keep(V v, real) const { return v; }
};

// The last `n` units of a row, fewer than a vector.
struct Rest {
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

// By halves: a chain of a logarithm's length.
ELMAN_INLINE real sum(V v) {
  real t[N];
  store(t, v);
#pragma GCC unroll 4
  for (long half = N / 2; half > 0; half /= 2)
#pragma GCC unroll 8
    for (long k = 0; k < half; ++k) t[k] += t[k + half];
  return t[0];
}
ELMAN_INLINE real greater(real a, real b) { return a > b || a != a ? a : b; }  // NaN wins
ELMAN_INLINE real max(V v) {
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

// -- exp and its kin ----------------------------------------------------------------------------
//
// x = n ln 2 + r with |r| ≤ ln 2 / 2, and e^r − 1 by its series, cut where the next term is below
// a tenth of an ulp. Errors, measured over the whole float range: exp 1.07, sigmoid 3.29, tanh 3.71 ulp.

template <class T>
struct Limits;
template <>
struct Limits<float> {
  static constexpr float round = 12582912.0f;  // 1.5 · 2^23: adding it rounds to an integer
  static constexpr int mantissa = 23, bias = 127, terms = 7;
  static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  static constexpr float exp_low = -104.0f, exp_high = 89.0f, normal = 87.0f, tanh_one = 10.0f;
};
template <>
struct Limits<double> {
  static constexpr double round = 6755399441055744.0;  // 1.5 · 2^52
  static constexpr int mantissa = 52, bias = 1023, terms = 13;
  static constexpr double ln2_high = 6.93145751953125e-1, ln2_low = 1.42860682030941723212e-6;
  static constexpr double exp_low = -746.0, exp_high = 710.0, normal = 708.0, tanh_one = 20.0;
};
using L = Limits<real>;

// NaN passes through both, as every comparison with it is false.
template <class X>
ELMAN_INLINE X at_least(X x, real low) {
  return where(x < low, low, x);
}
template <class X>
ELMAN_INLINE X at_most(X x, real high) {
  return where(x > high, high, x);
}

template <class X>
struct Split {
  X p;  // e^r − 1
  decltype(bits(X{})) n;
};
template <class X>
ELMAN_INLINE Split<X> split(X x) {
  const X shifted = x * real(1.44269504088896340736) + L::round;
  const X n = shifted - L::round;
  const X r = (x - n * L::ln2_high) - n * L::ln2_low;
  real coefficient = 1;
  for (int k = 2; k <= L::terms; ++k) coefficient /= k;
  X p = r * coefficient;
  for (int k = L::terms; k > 2; --k) {
    coefficient *= k;
    p = k > 3 ? (p + coefficient) * r : p + coefficient;
  }
  return {(p * r) * r + r, bits(shifted) - bits(splat(L::round))};
}
// 2^n, for n from 1 − bias to bias.
template <class X>
ELMAN_INLINE auto power_of_two(X n) {
  return reals((n + integer(L::bias)) << L::mantissa);
}
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

template <class X>
ELMAN_INLINE X exp(X x) {
  const auto s = split(at_most(at_least(x, L::exp_low), L::exp_high));
  // In two factors: either end of the range needs a power that is no real by itself.
  const auto half = s.n >> 1;
  return (s.p + real(1)) * power_of_two(half) * power_of_two(s.n - half);
}

template <class X>
ELMAN_INLINE X sigmoid(X x) {
  const auto s = split(-at_most(at_least(x, -L::normal), L::normal));
  const X scale = power_of_two(s.n);
  return inverse(s.p * scale + (scale + real(1)));
}

template <class X>
ELMAN_INLINE X tanh(X x) {
  const auto sign = bits(x) & bits(splat(real(-0.0)));
  const X magnitude = reals(bits(x) ^ sign);
  const auto s = split(real(2) * at_most(magnitude, L::tanh_one));
  const X scale = power_of_two(s.n);
  const X minus_one = s.p * scale + (scale - real(1));  // e^2|x| − 1, exact for small x
  return reals(bits(quotient(minus_one, minus_one + real(2))) | sign);
}

#define ELMAN_LANES(NAME)                                                                  \
  ELMAN_INLINE V NAME(V x) { return lanes(x, [](real v) { return std::NAME(v); }); }       \
  ELMAN_INLINE Pair NAME(Pair x) { return {NAME(x.a), NAME(x.b)}; }
ELMAN_LANES(expm1) ELMAN_LANES(log) ELMAN_LANES(log1p) ELMAN_LANES(sin) ELMAN_LANES(cos)
ELMAN_LANES(atan) ELMAN_LANES(erf) ELMAN_LANES(floor)
#undef ELMAN_LANES
ELMAN_INLINE V sqrt(V x) {
#if defined(__AVX512F__)
  if constexpr (sizeof(real) == 4) return (V)_mm512_sqrt_ps((__m512)x);
  else return (V)_mm512_sqrt_pd((__m512d)x);
#else
  return lanes(x, [](real v) { return std::sqrt(v); });
#endif
}
ELMAN_INLINE Pair sqrt(Pair x) { return {sqrt(x.a), sqrt(x.b)}; }
template <class X>
ELMAN_INLINE X rsqrt(X x) {
  return real(1) / sqrt(x);
}
template <class X>
ELMAN_INLINE X reciprocal(X x) {
  return real(1) / x;
}
template <class X>
ELMAN_INLINE X relu(X x) {
  return where(x < real(0), real(0), x);
}
template <class X>
ELMAN_INLINE X abs(X x) {
  return reals(bits(x) & ~bits(splat(real(-0.0))));
}
template <class X>
ELMAN_INLINE X sign(X x) {
  const X down = where(x < real(0), real(-1), splat(0));  // as PyTorch has it, NaN has none
  return where(x > real(0), real(1), down);
}
template <class X, class Y>
ELMAN_INLINE auto maximum(X a, Y b) {
  return where(a != a, a, where(a > b, a, b));
}
template <class X, class Y>
ELMAN_INLINE auto minimum(X a, Y b) {
  return where(a != a, a, where(a < b, a, b));
}

// What a reduction has so far, and more of the row.
ELMAN_INLINE V add_to(V total, V x) { return total + x; }
ELMAN_INLINE V add_to(V total, Pair x) { return (total + x.a) + x.b; }
ELMAN_INLINE V best_of(V best, V x) { return maximum(best, x); }
ELMAN_INLINE V best_of(V best, Pair x) { return maximum(maximum(best, x.a), x.b); }

}  // namespace elman
