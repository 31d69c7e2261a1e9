// The functions that a step is made of, for any type of value X: a real, a vector of them, two vectors.
//
// Whoever includes this has defined `real`; `integer`, as wide; V, what all units of a row have in
// common; and, of every X, arithmetic and comparisons, whose value is a mask; `where`, `real_of` and
// `logical_not` of masks; `splat`, a V of a real; `bits` and `reals`, its bits as integers and back,
// with the integers' operators; `lanes`, a function of each real in it, or in two; `sqrt`; `inverse` and
// `quotient`, 1 / b and a / b for finite b.
#pragma once
#include <cmath>

namespace elman {

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

#define ELMAN_LANES(NAME)                                       \
  template <class X>                                            \
  ELMAN_INLINE X NAME(X x) {                                    \
    return lanes(x, [](real v) { return std::NAME(v); });       \
  }
ELMAN_LANES(exp2) ELMAN_LANES(expm1) ELMAN_LANES(log) ELMAN_LANES(log1p)
ELMAN_LANES(sin) ELMAN_LANES(cos) ELMAN_LANES(asin) ELMAN_LANES(acos) ELMAN_LANES(atan)
ELMAN_LANES(sinh) ELMAN_LANES(cosh) ELMAN_LANES(asinh) ELMAN_LANES(acosh) ELMAN_LANES(atanh)
ELMAN_LANES(erf) ELMAN_LANES(erfc) ELMAN_LANES(floor)
#undef ELMAN_LANES

template <class X, class Y>
ELMAN_INLINE auto atan2(X x, Y y) {
  return lanes(x, y, [](real a, real b) { return std::atan2(a, b); });
}
template <class X>
ELMAN_INLINE X round(X x) {  // to the nearest integer, and of two to the even one
  return lanes(x, [](real v) { return std::nearbyint(v); });
}
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
template <class X, class Y>
ELMAN_INLINE auto copysign(X x, Y y) {
  const auto sign = bits(splat(real(-0.0)));
  return reals((bits(x) & ~sign) | (bits(y) & sign));
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

}  // namespace elman
