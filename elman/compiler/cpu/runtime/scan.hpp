// A linear recurrence over time, c_t = a_t ⊙ c_{t−1} + b_t, and its gradient.
//
// A step waits for the one before it only unit by unit. So the units of all rows are shared among
// the threads, and each thread goes through time alone, at the speed of memory.
#pragma once
#include <algorithm>

#include "vector.hpp"

namespace elman {

// As the Python side hands it over (see program.hpp). Sequences are (T, B, width); a complex
// row is `units` real parts and then as many imaginary ones.
struct Scan {
  long steps, batch, units, width;
  long reverse;                 // from the last step to the first
  long backward;                // the gradient
  const unsigned char* resets;  // (T, B): the state before this step is its start; or null
  const long* lengths;          // (B) or null
  const real* a;
  long a_step, a_row;           // both are 0 where a is the same for all steps and rows
  const real* b;
  const real* first;            // (B, width) before the first step
  const real* again;            // (B, width) after a reset, or null
  real* c;                      // out: after each step
  // The gradient's. What comes from c, or null; what is carried from step to step, (B, width): in,
  // what comes from the last state, and out, what goes to the first; what goes to a, or null,
  // summed over time where a is the same for all steps; to b; and to the start, summed.
  const real* from_c;
  real *carried, *to_a, *to_b, *to_again;
  long threads;

  // Of two vectors, as `each` takes them: with one, how a unit is computed, and so how it is
  // rounded, would depend on where another thread's part begins.
  static constexpr long kBlock = 2 * N;
  long blocks() const { return (units + kBlock - 1) / kBlock; }
};

template <class X>
struct Complex {
  X re, im;
};
template <class X>
ELMAN_INLINE Complex<X> operator+(Complex<X> x, Complex<X> y) {
  return {x.re + y.re, x.im + y.im};
}
template <class X>
ELMAN_INLINE Complex<X> operator*(Complex<X> x, Complex<X> y) {
  return {x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re};
}
template <class X>
ELMAN_INLINE X conjugate(X x) {
  return x;
}
template <class X>
ELMAN_INLINE Complex<X> conjugate(Complex<X> x) {
  return {x.re, -x.im};
}

// The units of a row at one place, real or complex.
template <bool kComplex, class At>
struct Units {
  At at;
  long count;
  ELMAN_INLINE auto load(const real* row) const {
    if constexpr (kComplex)
      return Complex<decltype(at.load(row))>{at.load(row), at.load(row + count)};
    else
      return at.load(row);
  }
  template <class X>
  ELMAN_INLINE void store(real* row, X x) const {
    if constexpr (kComplex) {
      at.store(row, x.re);
      at.store(row + count, x.im);
    } else {
      at.store(row, x);
    }
  }
};

// body(row, units) for the blocks from `begin` to `end` of all rows' units; units(f) is f of
// each vector of them.
template <bool kComplex, class Body>
ELMAN_INLINE void each_row(const Scan& s, long begin, long end, Body body) {
  const long blocks = s.blocks();
  while (begin < end) {
    const long row = begin / blocks, next = std::min(end, (row + 1) * blocks);
    const long from = (begin - row * blocks) * Scan::kBlock;
    const long to = std::min(s.units, (next - row * blocks) * Scan::kBlock);
    body(row, [&](auto f) {
      each(from, to, [&](auto at) { f(Units<kComplex, decltype(at)>{at, s.units}); });
    });
    begin = next;
  }
}

// What a step reads of its row: the state before it, and whether that is a start after a reset.
struct Before {
  const real* state;
  bool restarted;
};
inline Before before(const Scan& s, long k, long t, long row) {
  if (s.resets && s.resets[t * s.batch + row]) return {s.again + row * s.width, true};
  if (k == 0) return {s.first + row * s.width, false};
  return {s.c + ((s.reverse ? t + 1 : t - 1) * s.batch + row) * s.width, false};
}

inline bool ended(const Scan& s, long t, long row) { return s.lengths && t >= s.lengths[row]; }

template <bool kComplex>
void scan(const Scan& s, long begin, long end) {
  for (long k = 0; k < s.steps; ++k) {
    const long t = s.reverse ? s.steps - 1 - k : k;
    each_row<kComplex>(s, begin, end, [&](long row, auto units) {
      const real* past = before(s, k, t, row).state;
      const real* a = s.a + t * s.a_step + row * s.a_row;
      const long at = (t * s.batch + row) * s.width;
      if (ended(s, t, row))
        units([&](auto u) { u.store(s.c + at, u.load(past)); });
      else
        units([&](auto u) { u.store(s.c + at, u.load(a) * u.load(past) + u.load(s.b + at)); });
    });
  }
}

// g = ∂L/∂c_t, what comes from c_t itself and what the next step carries:
// to b_t goes g, to a_t goes g ⊙ c̄_{t−1}, and to c_{t−1} goes ā_t ⊙ g.
template <bool kComplex>
void scan_backward(const Scan& s, long begin, long end) {
  for (long k = s.steps - 1; k >= 0; --k) {
    const long t = s.reverse ? s.steps - 1 - k : k;
    each_row<kComplex>(s, begin, end, [&](long row, auto units) {
      const Before past = before(s, k, t, row);
      const real* a = s.a + t * s.a_step + row * s.a_row;
      const long at = (t * s.batch + row) * s.width;
      real* carried = s.carried + row * s.width;
      real* to_a = s.to_a ? s.to_a + (s.a_step ? at : row * s.width) : nullptr;
      real* to_again = s.to_again + row * s.width;
      const bool end_of_row = ended(s, t, row);
      units([&](auto u) {
        auto g = u.load(carried);
        if (s.from_c) g = g + u.load(s.from_c + at);
        if (end_of_row) {
          u.store(carried, g);
          u.store(s.to_b + at, decltype(g){});
          if (to_a && s.a_step) u.store(to_a, decltype(g){});
          return;
        }
        u.store(s.to_b + at, g);
        if (to_a) {
          const auto share = conjugate(u.load(past.state)) * g;
          u.store(to_a, s.a_step ? share : u.load(to_a) + share);
        }
        const auto earlier = conjugate(u.load(a)) * g;
        if (past.restarted) u.store(to_again, u.load(to_again) + earlier);
        u.store(carried, past.restarted ? decltype(g){} : earlier);
      });
    });
  }
}

inline void run_scan(const Scan& s, long begin, long end) {
  const bool complex = s.width != s.units;
  if (s.backward)
    complex ? scan_backward<true>(s, begin, end) : scan_backward<false>(s, begin, end);
  else
    complex ? scan<true>(s, begin, end) : scan<false>(s, begin, end);
}

}  // namespace elman
