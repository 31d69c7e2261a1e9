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
ELMAN_INLINE void store(real* p, V v) { std::memcpy(p, &v, sizeof v); }
ELMAN_INLINE I bits(V v) { return (I)v; }
ELMAN_INLINE V real_of(I mask) { return mask ? splat(1) : splat(0); }

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
    for (long k = n; k < N; ++k) v[k] = other;
    return v;
  }
};

// body(at) for the units from `begin` to `end`.
template <class Body>
ELMAN_INLINE void each(long begin, long end, Body body) {
  long j = begin;
  for (; j + N <= end; j += N) body(Whole{j});
  if (j < end) body(Rest{j, end - j});
}

ELMAN_INLINE real sum(V v) {
  real total = 0;
  for (long k = 0; k < N; ++k) total += v[k];
  return total;
}
ELMAN_INLINE real max(V v) {
  real best = v[0];
  for (long k = 1; k < N; ++k) best = v[k] > best || v[k] != v[k] ? v[k] : best;
  return best;
}

template <class F>
ELMAN_INLINE V lanes(V v, F f) {
  for (long k = 0; k < N; ++k) v[k] = f(v[k]);
  return v;
}

// -- exp and its kin ----------------------------------------------------------------------------
//
// x = n ln 2 + r with |r| ≤ ln 2 / 2, and e^r − 1 by its series, cut where the next term is below
// a tenth of an ulp. Errors, measured over the whole float range: exp 1.0, sigmoid 2.8, tanh 3.3 ulp.

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
ELMAN_INLINE V at_least(V x, real low) { return x < low ? splat(low) : x; }
ELMAN_INLINE V at_most(V x, real high) { return x > high ? splat(high) : x; }

struct Split {
  V p;  // e^r − 1
  I n;
};
ELMAN_INLINE Split split(V x) {
  const V shifted = x * real(1.44269504088896340736) + L::round;
  const V n = shifted - L::round;
  const V r = (x - n * L::ln2_high) - n * L::ln2_low;
  real coefficient = 1;
  for (int k = 2; k <= L::terms; ++k) coefficient /= k;
  V p = splat(coefficient);
  for (int k = L::terms; k > 2; --k) {
    coefficient *= k;
    p = p * r + coefficient;
  }
  return {(p * r) * r + r, bits(shifted) - bits(splat(L::round))};
}
// 2^n, for n from 1 − bias to bias.
ELMAN_INLINE V power_of_two(I n) { return (V)((n + L::bias) << L::mantissa); }

// a / b for finite b: an estimate and a step of Newton's are four times as fast as a division.
ELMAN_INLINE V quotient(V a, V b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(real) == 4) {
    const V estimate = (V)_mm512_rcp14_ps((__m512)b);
    return a * (estimate * (real(2) - b * estimate));
  }
#endif
  return a / b;
}

ELMAN_INLINE V exp(V x) {
  const Split s = split(at_most(at_least(x, L::exp_low), L::exp_high));
  // In two factors: either end of the range needs a power that is no real by itself.
  const I half = s.n >> 1;
  return (s.p + real(1)) * power_of_two(half) * power_of_two(s.n - half);
}

ELMAN_INLINE V sigmoid(V x) {
  const Split s = split(-at_most(at_least(x, -L::normal), L::normal));
  const V scale = power_of_two(s.n);
  return quotient(splat(1), s.p * scale + scale + real(1));
}

ELMAN_INLINE V tanh(V x) {
  const I sign = bits(x) & bits(splat(real(-0.0)));
  const V magnitude = (V)(bits(x) ^ sign);
  const Split s = split(real(2) * at_most(magnitude, L::tanh_one));
  const V scale = power_of_two(s.n);
  const V minus_one = s.p * scale + (scale - real(1));  // e^2|x| − 1, exact for small x
  return (V)(bits(quotient(minus_one, minus_one + real(2))) | sign);
}

ELMAN_INLINE V expm1(V x) { return lanes(x, [](real v) { return std::expm1(v); }); }
ELMAN_INLINE V log(V x) { return lanes(x, [](real v) { return std::log(v); }); }
ELMAN_INLINE V log1p(V x) { return lanes(x, [](real v) { return std::log1p(v); }); }
ELMAN_INLINE V sin(V x) { return lanes(x, [](real v) { return std::sin(v); }); }
ELMAN_INLINE V cos(V x) { return lanes(x, [](real v) { return std::cos(v); }); }
ELMAN_INLINE V atan(V x) { return lanes(x, [](real v) { return std::atan(v); }); }
ELMAN_INLINE V erf(V x) { return lanes(x, [](real v) { return std::erf(v); }); }
ELMAN_INLINE V floor(V x) { return lanes(x, [](real v) { return std::floor(v); }); }
ELMAN_INLINE V sqrt(V x) { return lanes(x, [](real v) { return std::sqrt(v); }); }
ELMAN_INLINE V rsqrt(V x) { return real(1) / sqrt(x); }
ELMAN_INLINE V reciprocal(V x) { return real(1) / x; }
ELMAN_INLINE V relu(V x) { return x < real(0) ? splat(0) : x; }
ELMAN_INLINE V abs(V x) { return (V)(bits(x) & ~bits(splat(real(-0.0)))); }
ELMAN_INLINE V sign(V x) {
  return x > real(0) ? splat(1) : (x < real(0) ? splat(-1) : (x == x ? splat(0) : x));
}
ELMAN_INLINE V maximum(V a, V b) { return a != a ? a : (a > b ? a : b); }
ELMAN_INLINE V minimum(V a, V b) { return a != a ? a : (a < b ? a : b); }
ELMAN_INLINE V where(I mask, V a, V b) { return mask ? a : b; }

}  // namespace elman
