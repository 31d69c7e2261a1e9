// The engine's parts against plain loops, and runs recorded on one machine replayed on this one.
//
// Built for a machine at hand, with sanitizers, or for another one, under an emulator: prints one
// line for each thing that is wrong.
#include <cstdio>
#include <limits>

#include "runtime.cpp"

using wide = std::conditional_t<sizeof(real) == 4, double, long double>;

int failures = 0;

void expect(bool right, const char* what, long a = 0, long b = 0, long c = 0) {
  if (right) return;
  ++failures;
  std::printf("wrong: %s (%ld, %ld, %ld)\n", what, a, b, c);
}

// Numbers between −1 and 1 that look drawn, and are the same everywhere.
struct Numbers {
  std::uint64_t seed;
  real next() {
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return real(std::int32_t(seed >> 32)) / real(2147483648.0);
  }
  std::vector<real> some(long count) {
    std::vector<real> out(count);
    for (real& x : out) x = next();
    return out;
  }
};

bool near(wide a, wide b, wide tolerance) { return std::fabs(a - b) <= tolerance * (1 + std::fabs(b)); }
const wide kTolerance = sizeof(real) == 4 ? 1e-5 : 1e-13;

// -- functions ----------------------------------------------------------------------------------

wide exact_sigmoid(wide x) { return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x)); }
wide exact_exp(wide x) { return std::exp(x); }
wide exact_tanh(wide x) { return std::tanh(x); }

template <class Fast, class Exact>
void check_function(const char* name, Fast fast, Exact exact, double limit, wide lowest) {
  double worst = 0;
  const auto one = [&](real x) {
    const real y = first(fast(splat(x)))[0];
    const wide right = exact(wide(x));
    if (std::isnan(x)) {
      expect(std::isnan(y), name);
    } else if (right > std::numeric_limits<real>::max()) {
      expect(std::isinf(y), name);
    } else if (std::fabs(right) < std::numeric_limits<real>::min() || x < lowest) {
      expect(std::fabs(y - right) <= 2 * std::numeric_limits<real>::min(), name);
    } else {
      const wide ulp = std::nextafter(real(std::fabs(right)), real(INFINITY)) - real(std::fabs(right));
      worst = std::max(worst, double(std::fabs(y - right) / ulp));
    }
  };
  using unsigned_integer = std::make_unsigned_t<integer>;
  const auto of_bits = [&](unsigned_integer bits) {
    real x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
  };
  // Every sign and exponent, with mantissas that look drawn; then the interval where they matter.
  const unsigned_integer stride = ~unsigned_integer(0) / 20011;
  for (unsigned_integer bits = 0, last = 0; bits >= last; last = bits, bits += stride) one(of_bits(bits));
  for (long i = -10000; i <= 10000; ++i) one(real(i) * real(0.0017));
  for (real x : {real(0), real(INFINITY), real(NAN)}) one(x), one(-x);
  std::printf("%s: %.2f ulp\n", name, worst);
  expect(worst <= limit, name, long(100 * worst));
}

void check_functions() {
  check_function("exp", [](V x) { return elman::exp(x); }, exact_exp, 1.5, -INFINITY);
  check_function("sigmoid", [](V x) { return elman::sigmoid(x); }, exact_sigmoid, 3.0, -L::normal);
  check_function("tanh", [](V x) { return elman::tanh(x); }, exact_tanh, 3.5, -INFINITY);
}

// -- packing and products -----------------------------------------------------------------------

void check_turn() {
  Numbers numbers{1};
  const long row = N + 3;
  const auto in = numbers.some(N * row);
  std::vector<real> out(N * kBlock);
  turn(in.data(), row, out.data());
  for (long i = 0; i < N; ++i)
    for (long j = 0; j < N; ++j) expect(out[j * kBlock + i] == in[i * row + j], "turn", i, j);
}

void check_pack(long depth, long columns, bool turned) {
  Numbers numbers{2};
  const auto w = numbers.some(depth * columns);
  const long down = turned ? 1 : columns, across = turned ? depth : 1;
  std::vector<real> packed(packed_size(depth, columns), NAN);
  const Product product{0, 0, depth, columns, w.data(), down, across, packed.data()};
  Program program{};
  program.threads = 2, program.products = &product, program.product_count = 1;
  elman_pack(&program);
  for (long c = 0; c < blocks(columns) * kBlock; ++c)
    for (long k = 0; k < depth; ++k)
      expect(packed[(c / kBlock * depth + k) * kBlock + c % kBlock] ==
                 (c < columns ? w[k * down + c * across] : 0),
             "pack", depth, columns, turned);
}

void check_rows(long rows, long depth, long columns) {
  Numbers numbers{3};
  const auto a = numbers.some(rows * depth), w = numbers.some(depth * columns);
  std::vector<real> packed(packed_size(depth, columns)), out(rows * columns, NAN);
  pack(w.data(), columns, 1, depth, columns, packed.data(), 0, blocks(columns));
  // In two parts of the columns, and the sums in two pieces.
  const long middle = blocks(columns) / 2, piece = depth / 2;
  for (long part = 0; part < 2; ++part)
    for (long k : {0L, piece})
      kernel_for(rows)(a.data() + k, depth, packed.data() + k * kBlock, kBlock * depth,
                       k ? depth - piece : piece, out.data(), columns, columns, part ? middle : 0,
                       part ? blocks(columns) : middle, k > 0);
  for (long r = 0; r < rows; ++r)
    for (long c = 0; c < columns; ++c) {
      wide total = 0;
      for (long k = 0; k < depth; ++k) total += wide(a[r * depth + k]) * w[k * columns + c];
      expect(near(out[r * columns + c], total, kTolerance), "rows", rows, depth, columns);
    }
}

void check_dots(long rows, long depth, long columns) {
  Numbers numbers{6};
  const auto a = numbers.some(rows * depth), w = numbers.some(columns * depth);
  std::vector<real> out(rows * columns, NAN), alone(columns);
  rows_times_rows(a.data(), depth, rows, w.data(), depth, depth, out.data(), columns, columns);
  for (long r = 0; r < rows; ++r) {
    rows_times_rows(a.data() + r * depth, depth, 1, w.data(), depth, depth, alone.data(), columns, columns);
    for (long c = 0; c < columns; ++c) {
      wide total = 0;
      for (long k = 0; k < depth; ++k) total += wide(a[r * depth + k]) * w[c * depth + k];
      expect(near(out[r * columns + c], total, kTolerance), "dots", rows, depth, columns);
      expect(out[r * columns + c] == alone[c], "dots alone", rows, depth, columns);
    }
  }
}

// What a product is added to: nothing, what is there, a row of biases.
enum Begin { kZero, kAdd, kBias };

void check_matrices(long rows, long depth, long columns, bool turn_a, bool turn_b, Begin begin, long threads) {
  Numbers numbers{4};
  const auto a = numbers.some(rows * depth), b = numbers.some(depth * columns), bias = numbers.some(columns);
  auto out = numbers.some(rows * columns);
  const auto before = out;
  const long a_down = turn_a ? 1 : depth, a_across = turn_a ? rows : 1;
  const long b_down = turn_b ? 1 : columns, b_across = turn_b ? depth : 1;
  const MatrixProduct product{a.data(), a_down, a_across, b.data(), b_down, b_across,
                              rows, depth, columns, out.data(), columns,
                              begin == kBias ? bias.data() : nullptr, begin == kAdd, threads};
  elman_product(&product);
  for (long i = 0; i < rows; ++i)
    for (long j = 0; j < columns; ++j) {
      wide total = begin == kBias ? bias[j] : begin == kAdd ? before[i * columns + j] : 0;
      for (long k = 0; k < depth; ++k)
        total += wide(a[i * a_down + k * a_across]) * b[k * b_down + j * b_across];
      expect(near(out[i * columns + j], total, 4 * kTolerance), "matrices", rows, depth, columns);
    }
}

void check_sums(long rows, long columns) {
  Numbers numbers{5};
  const auto in = numbers.some(rows * columns);
  std::vector<real> out(columns);
  const ColumnSums sums{in.data(), columns, rows, columns, out.data(), 2};
  elman_sum_rows(&sums);
  for (long c = 0; c < columns; ++c) {
    wide total = 0;
    for (long r = 0; r < rows; ++r) total += in[r * columns + c];
    expect(near(out[c], total, kTolerance), "sums", rows, columns);
  }
}

void check_products() {
  check_turn();
  for (bool turned : {false, true}) {
    for (long depth : {1, 5, 16, 37})
      for (long columns : {1, 7, 31, 33, 70}) check_pack(depth, columns, turned);
    check_pack(130, 140, turned);  // large enough to be shared among threads
  }
  for (long rows = 1; rows <= kRows; ++rows)
    for (long columns : {1, 16, 33, 150}) check_rows(rows, 9, columns);
  for (long rows : {1, 2, 3, 7})
    for (long depth : {1L, N - 1, N, 3 * N + 1, 9 * N + 2})
      for (long columns : {1, 5, 16, 33}) check_dots(rows, depth, columns);
  for (Begin begin : {kZero, kAdd, kBias})
    for (bool turn_a : {false, true})
      for (bool turn_b : {false, true}) {
        check_matrices(1, 1, 1, turn_a, turn_b, begin, 1);
        check_matrices(29, 17, 35, turn_a, turn_b, begin, 2);
        check_matrices(70, 40, 70, turn_a, turn_b, begin, 3);
      }
  check_matrices(13, 2 * kDepth + 5, 37, true, false, kAdd, 2);
  check_matrices(13 * kTall, 21, 3, true, true, kZero, 2);
  check_matrices(3, 21, kWide * kBlock + 5, false, true, kBias, 2);
  check_sums(1, 1);
  check_sums(77, 650);
}

// -- recorded runs ------------------------------------------------------------------------------

// A memory of a run: what was there before it and is to be there after it.
struct Memory {
  real* data;
  const real* after;
  long count;
};

void replay(Program program, Product* products, const Memory* memories, long memory_count,
            const char* name) {
  std::vector<std::vector<real>> packed;
  for (long i = 0; i < program.product_count; ++i) {
    Product& p = products[i];
    if (p.down == 1 && i % 2) continue;  // as it lies in memory
    packed.emplace_back(packed_size(p.depth, p.columns));
    p.packed = packed.back().data();
  }
  elman_run(&program);
  for (long i = 0; i < memory_count; ++i)
    for (long j = 0; j < memories[i].count; ++j) {
      const real a = memories[i].data[j], b = memories[i].after[j];
      expect(a == b || near(a, b, 20 * kTolerance), name, i, j);
    }
}

#include "recorded.inc"

int main() {
  check_functions();
  check_products();
  replay_all();
  std::printf("vectors of %d bits, %d wrong\n", 8 * kBytes, failures);
  return failures != 0;
}
