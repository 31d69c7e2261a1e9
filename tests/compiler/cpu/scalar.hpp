// One unit at a time: what functions.hpp asks of a type of value, for plain reals.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define ELMAN_INLINE inline

namespace elman {

using real = ELMAN_REAL;
using integer = std::conditional_t<sizeof(real) == 4, std::int32_t, std::int64_t>;
using V = real;
using Mask = bool;

inline real splat(real x) { return x; }
inline integer bits(real x) {
  integer i;
  std::memcpy(&i, &x, sizeof i);
  return i;
}
inline real reals(integer i) {
  real x;
  std::memcpy(&x, &i, sizeof x);
  return x;
}
inline real where(bool mask, real a, real b) { return mask ? a : b; }
inline real real_of(bool mask) { return mask; }
inline bool logical_not(bool mask) { return !mask; }
template <class F>
real lanes(real x, F f) {
  return f(x);
}
template <class F>
real lanes(real x, real y, F f) {
  return f(x, y);
}
inline real sqrt(real x) { return std::sqrt(x); }
inline real inverse(real b) { return 1 / b; }
inline real quotient(real a, real b) { return a / b; }
inline real row_sum(real total, real x) { return total + x; }
inline real row_max(real best, real x) { return best > x || best != best ? best : x; }

}  // namespace elman

#include "functions.hpp"
