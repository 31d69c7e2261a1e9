// The part of the native engine that is the same for every cell, as a library with a C interface.
#include "loop.hpp"
#include "matrix.hpp"
#include "scan.hpp"

namespace elman {

// The sum of the rows of a matrix (row_count, columns).
struct ColumnSums {
  const real* rows;
  long row;  // from one row to the next
  long row_count, columns;
  real* out;
  long threads;
};

}  // namespace elman

using namespace elman;

namespace {

void pack_matrices(const Program& p) {
  for (long i = 0; i < p.product_count; ++i) {
    const Product& w = p.products[i];
    if (!w.packed) continue;
    const long count = blocks(w.columns);
    const long parts = w.depth * w.columns < 16384 ? 1 : std::min(p.threads, count);
    parallel_for(parts, parts, [&](long part) {
      pack(w.matrix, w.down, w.across, w.depth, w.columns, w.packed, count * part / parts,
           count * (part + 1) / parts);
    });
  }
}

// Rows that a thread takes at a time, so that what a step touches stays in its cache.
constexpr long kChunk = 8 * kRows;

void run_rows(const Program& p, int threads) {
  const long per_thread = (p.batch + threads - 1) / threads;
  const long rounds = (per_thread + kChunk - 1) / kChunk;
  const long chunks = std::min(p.batch, rounds * threads);
  const auto work = [&](long chunk) {
    Barrier alone;
    Worker(p, alone, 0, 1, p.batch * chunk / chunks, p.batch * (chunk + 1) / chunks).run();
  };
  parallel_for(threads, chunks, work);
}

// All threads on the same rows, one program after the other.
void run_team(Program* const* programs, long count, int threads) {
  Barrier barrier;
  parallel(threads, [&](long member, long members) {
    for (long i = 0; i < count; ++i)
      Worker(*programs[i], barrier, member, members, 0, programs[i]->batch).run();
  });
}

}  // namespace

extern "C" {

// The matrices of a program whose steps elman_step takes.
long elman_pack(const Program* p) {
  pack_matrices(*p);
  return 0;
}

long elman_run(Program* p) {
  pack_matrices(*p);
  const int threads = static_cast<int>(p->threads);
  if (p->team > 1)
    run_team(&p, 1, static_cast<int>(p->team));
  else
    run_rows(*p, static_cast<int>(std::min<long>(threads, p->batch)));
  return 0;
}

// 1, and nothing is done, where what was computed from weights has to be computed again.
long elman_step(Stack* stack) {
  if (stack->stale()) return 1;
  stack->connect();
  if (stack->threads > 1) {
    run_team(stack->layers, stack->layer_count, static_cast<int>(stack->threads));
    return 0;
  }
  Barrier alone;
  for (long i = 0; i < stack->layer_count; ++i)
    Worker(*stack->layers[i], alone, 0, 1, 0, stack->layers[i]->batch).run();
  return 0;
}

long elman_product(const MatrixProduct* p) {
  p->run();
  return 0;
}

// Of every 32 rows first, which keeps the error small.
long elman_sum_rows(const ColumnSums* s) {
  constexpr long kWide = 256 * N;  // long pieces of rows, which memory gives at its best rate
  const auto work = [&](long part, long parts) {
    const long vectors = (s->columns + N - 1) / N;
    const long begin = vectors * part / parts * N;
    const long n = std::min(s->columns, vectors * (part + 1) / parts * N) - begin;
    real some[kWide];
    std::memset(s->out + begin, 0, n * sizeof(real));
    for (long first = 0; first < s->row_count; first += 32) {
      std::memset(some, 0, n * sizeof(real));
      for (long r = first; r < std::min(s->row_count, first + 32); ++r)
        for (long c = 0; c < n; ++c) some[c] += s->rows[r * s->row + begin + c];
      for (long c = 0; c < n; ++c) s->out[begin + c] += some[c];
    }
  };
  const long threads = s->row_count * s->columns < 1 << 15 ? 1 : s->threads;
  const long parts = std::max(threads, (s->columns + kWide - 1) / kWide);
  parallel_for(threads, parts, [&](long part) { work(part, parts); });
  return 0;
}

long elman_scan(const Scan* s) {
  const long blocks = s->batch * s->blocks();
  const bool small = s->steps * s->batch * s->width < 1 << 15;
  const long parts = small ? 1 : std::max(1L, std::min(s->threads, blocks));
  parallel_for(parts, parts,
               [&](long i) { run_scan(*s, blocks * i / parts, blocks * (i + 1) / parts); });
  return 0;
}

// A matrix has columns in blocks of this many, the last one filled up, where it is packed.
long elman_block() { return kBlock; }

long elman_vector_bytes() { return kBytes; }

}  // extern "C"
