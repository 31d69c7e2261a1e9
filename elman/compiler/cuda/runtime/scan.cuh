// A linear recurrence over time, c_t = a_t ⊙ c_{t−1} + b_t, and its gradient, which read and write
// every number once.
//
// Units of all rows are channels. A tile is 32 of them, a lane each, over a chunk of time, of which each
// warp has STEPS steps in registers. Steps after each other are again one, A ⊙ c + S. A block makes that
// of its tile's, and tells it; then it looks back at the chunks before, as many as it has warps, for the
// nearest whose end is known, and goes from there by what the chunks between have told (decoupled
// look-back, Merrill & Garland, 2016). Whichever it finds, it computes the same from the same numbers.
// All blocks are there at once and take tiles in the order of time, so none waits forever.
#pragma once
#include "device.cuh"

namespace elman {

// As the Python side hands it over. Sequences are (T, B, width), with the strides of a step and a row
// where they are told; a complex row is `units` real parts and then as many imaginary ones.
struct Scan {
  long steps, batch, units;
  long backwards;               // from the last step to the first
  long chunks, groups;          // of time, warps · STEPS long, and of 32 channels
  const unsigned char* resets;  // (T, B): the state before this step is its start; or null
  const long* lengths;          // (B) or null
  const real* a;                // or (width), of all steps and rows
  long a_step, a_row;
  const real* b;                // the gradient's: what comes from c, or null
  long b_step, b_row;
  const real* start;            // (B, width) what is carried into the first step taken; null is zero
  real* c;                      // out: c; the gradient's: what goes to b
  real* last;                   // out (B, width): what is carried out of the last step taken
  const real* again;            // (B, width) c after a reset, or null
  // The gradient's: c, and what was before its first step; out: what goes to a, or null, summed over a
  // chunk (chunks, B, width) where a is of all steps; and what goes to `again`, summed so, or null.
  const real *states, *first;
  real *to_a, *to_again;
  // Chunks to each other: of each a flag for each group, and numbers of each channel.
  unsigned* flags;              // (chunks, groups), zero
  real* board;
};

constexpr unsigned TOLD = 1, KNOWN = 2;  // a chunk's A and S are told; c after it is known

struct Complex {
  real re, im;
};
template <class X>
constexpr int PARTS = sizeof(X) / sizeof(real);

// a x + b, rounded in one way wherever it stands.
ELMAN_INLINE float fused(float a, float x, float b) { return fmaf(a, x, b); }
ELMAN_INLINE double fused(double a, double x, double b) { return fma(a, x, b); }
ELMAN_INLINE Complex fused(Complex a, Complex x, Complex b) {
  return {fused(a.re, x.re, fused(-a.im, x.im, b.re)), fused(a.re, x.im, fused(a.im, x.re, b.im))};
}
ELMAN_INLINE Complex operator+(Complex x, Complex y) { return {x.re + y.re, x.im + y.im}; }
ELMAN_INLINE real conjugate(real x) { return x; }
ELMAN_INLINE Complex conjugate(Complex x) { return {x.re, -x.im}; }

template <class X, class Load>
ELMAN_INLINE X read(const real* at, long apart, Load load) {
  if constexpr (PARTS<X> == 2)
    return {load(at), load(at + apart)};
  else
    return load(at);
}
ELMAN_INLINE void write(real* at, long, real x) { *at = x; }
ELMAN_INLINE void write(real* at, long apart, Complex x) {
  *at = x.re;
  at[apart] = x.im;
}

// Steps as one: A c + S; or S alone where c, which may be infinite, is not read, after a reset.
template <class X>
struct Steps {
  static constexpr int FIELDS = 2 * PARTS<X> + 1;
  X product{1}, sum{};
  bool restarted = false;

  ELMAN_INLINE X operator()(X c) const { return restarted ? sum : fused(product, c, sum); }
  ELMAN_INLINE void then(const Steps& next) {
    sum = next(sum);
    product = fused(next.product, product, X{});
    restarted |= next.restarted;
  }
  ELMAN_INLINE void put(real* at, long apart) const {
    write(at, apart, product);
    write(at + PARTS<X> * apart, apart, sum);
    at[2 * PARTS<X> * apart] = restarted;
  }
  template <class Load>
  static ELMAN_INLINE Steps get(const real* at, long apart, Load load) {
    return {read<X>(at, apart, load), read<X>(at + PARTS<X> * apart, apart, load),
            load(at + 2 * PARTS<X> * apart) != 0};
  }
};

// The gradient, g = ∂L/∂c_t, is what comes from c_t itself and what the next step carries: to b_t goes
// g, to a_t goes g ⊙ c̄_{t−1}, and to c_{t−1} goes ā_t ⊙ g.
template <class X, int STEPS, bool kFixed, bool kBackward>
ELMAN_INLINE void scan(const Scan& s) {
  constexpr int FIELDS = Steps<X>::FIELDS;
  const auto streaming = [](const real* at) { return load_streaming(at); };
  const auto fresh = [](const real* at) { return load_fresh(at); };
  const auto shared = [](const real* at) { return *at; };

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  real* const own = reinterpret_cast<real*>(shared_memory()) + lane;  // of each warp
  real* const window = own + warps * FIELDS * 32;                     // of each chunk looked at
  volatile unsigned* const found = reinterpret_cast<unsigned*>(window - lane + warps * FIELDS * 32);
  const auto place = [&](real* base, int k) { return base + k * FIELDS * 32; };

  const long channels = s.batch * s.units, width = PARTS<X> * s.units;
  for (long tile = blockIdx.x; tile < s.chunks * s.groups; tile += gridDim.x) {
    const long chunk = tile / s.groups, channel = tile % s.groups * 32 + lane;
    const bool there = channel < channels, tells = chunk + 1 < s.chunks;
    const long row = there ? channel / s.units : 0, unit = there ? channel % s.units : 0;
    const long at = row * width + unit, begin = (chunk * warps + warp) * STEPS;
    const long length = s.lengths ? s.lengths[row] : s.steps;
    const long ahead = s.backwards ? -1 : 1, t = s.backwards ? s.steps - 1 - begin : begin;

    // Which of the steps there are, in the batch, in the sequence, and after a reset: a bit each.
    const auto is = [](unsigned mask, int i) { return mask >> i & 1; };
    const auto first_of = [](long n) { return (1u << (n < 0 ? 0 : n > STEPS ? STEPS : n)) - 1; };
    const unsigned within = there ? first_of(s.steps - begin) : 0;
    const unsigned alive =
        within & (s.backwards ? ~first_of(s.steps - length - begin) : first_of(length - begin));
    unsigned restarted = 0;
    if (s.resets) {
      const unsigned char* reset = s.resets + t * s.batch + row;
#pragma unroll
      for (int i = 0; i < STEPS; ++i, reset += ahead * s.batch)
        if (is(alive, i)) restarted |= unsigned(*reset != 0) << i;
    }

    // What they are.
    X a[kFixed ? 1 : STEPS], b[STEPS];
    if constexpr (kFixed) {
      a[0] = read<X>(s.a + unit, s.units, streaming);
    } else {
      const real* from = s.a + t * s.a_step + row * s.a_row + unit;
#pragma unroll
      for (int i = 0; i < STEPS; ++i, from += ahead * s.a_step)
        a[i] = is(alive, i) ? read<X>(from, s.units, streaming) : X{};
    }
    const unsigned given = kBackward ? s.b ? within : 0 : alive;
    const real* from = s.b + t * s.b_step + row * s.b_row + unit;
#pragma unroll
    for (int i = 0; i < STEPS; ++i, from += ahead * s.b_step)
      b[i] = is(given, i) ? read<X>(from, s.units, streaming) : X{};
    const auto factor = [&](int i) { return kBackward ? conjugate(a[kFixed ? 0 : i]) : a[kFixed ? 0 : i]; };
    X again{};
    if (s.resets && there) again = read<X>(s.again + at, s.units, streaming);
    const auto next = [&](int i, X c) {
      if constexpr (kBackward) {
        const X g = c + b[i];
        return !is(alive, i) ? g : is(restarted, i) ? X{} : fused(factor(i), g, X{});
      } else {
        return !is(alive, i) ? c : fused(factor(i), is(restarted, i) ? again : c, b[i]);
      }
    };

    // As one: the thread's, the tile's, which are told.
    Steps<X> mine;
#pragma unroll
    for (int i = 0; i < STEPS; ++i) {
      mine.sum = next(i, mine.sum);
      if (is(alive, i)) mine.product = fused(factor(i), mine.product, X{});
    }
    mine.restarted = restarted != 0;
    block_barrier();  // those who still read the last tile's
    mine.put(place(own, warp), 32);
    block_barrier();
    Steps<X> all;
    real* const board = s.board + chunk * (FIELDS + PARTS<X>)*channels + channel;
    if (warp == 0 && tells) {
      for (int k = 0; k < warps; ++k) all.then(Steps<X>::get(place(own, k), 32, shared));
      if (chunk > 0) {
        if (there) all.put(board, channels);
        warp_barrier();
        if (lane == 0) publish(s.flags + tile, TOLD);
      }
    }

    // Back to a chunk whose end is known: a warp looks at one.
    const long back = chunk - 1 - warp;
    const real* const theirs = board - (warp + 1) * (FIELDS + PARTS<X>)*channels;
    unsigned seen = 0;
    int known = 0;
    for (bool done = false; !done;) {
      if (lane == 0)
        found[warp] = back >= 0 ? observe(s.flags + tile - (warp + 1) * s.groups) : back == -1 ? KNOWN : 0;
      warp_barrier();
      const unsigned now = found[warp];
      if (there && now != seen) {
        Steps<X> said;
        if (now == TOLD)
          said = Steps<X>::get(theirs, channels, fresh);
        else if (back >= 0)
          said.sum = read<X>(theirs + FIELDS * channels, channels, fresh);
        else if (s.start)
          said.sum = read<X>(s.start + at, s.units, streaming);
        said.put(place(window, warp), 32);
      }
      seen = now;
      block_barrier();
      for (known = 0; known < warps && found[known] == TOLD;) ++known;
      done = known < warps && found[known] == KNOWN;
      block_barrier();  // before anybody looks again
    }
    X c = Steps<X>::get(place(window, known), 32, shared).sum;
    for (int k = known - 1; k >= 0; --k) c = Steps<X>::get(place(window, k), 32, shared)(c);
    if (warp == 0 && tells) {
      if (there) write(board + FIELDS * channels, channels, all(c));
      warp_barrier();
      if (lane == 0) publish(s.flags + tile, KNOWN);
    }

    // Step by step from there.
    for (int k = 0; k < warp; ++k) c = Steps<X>::get(place(own, k), 32, shared)(c);
    X to_a{}, to_again{};
    const long step = ahead * s.batch * width;
    long here = t * s.batch * width + at;
#pragma unroll
    for (int i = 0; i < STEPS; ++i, here += step) {
      const bool last = begin + i == s.steps - 1;
      if constexpr (kBackward) {
        const X g = is(alive, i) ? c + b[i] : X{};
        if (is(within, i)) write(s.c + here, s.units, g);
        if (s.to_a && is(within, i)) {
          X past = again;
          if (is(alive & ~restarted, i))
            past = read<X>(last ? s.first + at : s.states + here + step, s.units, streaming);
          if constexpr (kFixed) {
            if (is(alive, i)) to_a = fused(conjugate(past), g, to_a);
          } else {
            write(s.to_a + here, s.units, is(alive, i) ? fused(conjugate(past), g, X{}) : X{});
          }
        }
        if (is(restarted, i)) to_again = fused(factor(i), g, to_again);
        c = next(i, c);
      } else {
        c = next(i, c);
        if (is(within, i)) write(s.c + here, s.units, c);
      }
      if (there && last) write(s.last + at, s.units, c);
    }

    if constexpr (kBackward) {
      const auto gather = [&](X part, real* sums) {
        block_barrier();
        write(place(own, warp), 32, part);
        block_barrier();
        if (warp > 0 || !there) return;
        X total{};
        for (int k = 0; k < warps; ++k) total = total + read<X>(place(own, k), 32, shared);
        write(sums + chunk * s.batch * width + at, s.units, total);
      };
      if (kFixed && s.to_a) gather(to_a, s.to_a);
      if (s.to_again) gather(to_again, s.to_again);
    }
  }
}

}  // namespace elman
