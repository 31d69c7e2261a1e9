// The part of the engine that is the same for every cell, as a library with a C interface.
#include "loop.hpp"
#include "matrix.hpp"
#include "scan.hpp"

using namespace elman;

namespace {

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

void elman_run(Program* p) {
  const int threads = static_cast<int>(p->threads);
  if (p->team > 1)
    run_team(&p, 1, static_cast<int>(p->team));
  else
    run_rows(*p, static_cast<int>(std::min<long>(threads, p->batch)));
}

// 1, and nothing is done, where what was computed from weights has to be computed again.
int elman_step(Stack* stack) {
  if (stack->stale()) return 1;
  stack->connect();
  if (stack->threads > 1) {
    run_team(stack->layers, stack->count, static_cast<int>(stack->threads));
    return 0;
  }
  Barrier alone;
  for (long i = 0; i < stack->count; ++i)
    Worker(*stack->layers[i], alone, 0, 1, 0, stack->layers[i]->batch).run();
  return 0;
}

long elman_packed_size(long depth, long columns) { return packed_size(depth, columns); }

void elman_pack(const real* w, long stride_k, long stride_c, long depth, long columns,
                real* packed, long threads) {
  const long count = blocks(columns);
  const long parts = std::min(threads, count);
  if (parts == 1 || depth * columns < 16384) {
    pack(w, stride_k, stride_c, depth, columns, packed, 0, count);
    return;
  }
  parallel_for(parts, parts, [&](long i) {
    pack(w, stride_k, stride_c, depth, columns, packed, count * i / parts, count * (i + 1) / parts);
  });
}

void elman_product(const MatrixProduct* p, long threads) { p->run(threads); }

// The sum of the rows: of every 32 first, which keeps the error small.
void elman_sum_rows(const real* in, long row, long rows, long columns, real* out, long threads) {
  constexpr long kWide = 256 * N;  // long pieces of rows, which memory gives at its best rate
  const auto work = [&](long part, long parts) {
    const long vectors = (columns + N - 1) / N;
    const long begin = vectors * part / parts * N, n = std::min(columns, vectors * (part + 1) / parts * N) - begin;
    real some[kWide];
    std::memset(out + begin, 0, n * sizeof(real));
    for (long first = 0; first < rows; first += 32) {
      std::memset(some, 0, n * sizeof(real));
      for (long r = first; r < std::min(rows, first + 32); ++r)
        for (long c = 0; c < n; ++c) some[c] += in[r * row + begin + c];
      for (long c = 0; c < n; ++c) out[begin + c] += some[c];
    }
  };
  if (rows * columns < 1 << 15) threads = 1;
  const long parts = std::max(threads, (columns + kWide - 1) / kWide);
  parallel_for(threads, parts, [&](long part) { work(part, parts); });
}

void elman_scan(const Scan* s, long backward, long threads) {
  const long blocks = s->batch * s->blocks();
  const long parts = std::min(threads, blocks);
  if (parts <= 1 || s->steps * s->batch * s->width < 1 << 15) {
    run_scan(*s, backward, 0, blocks);
    return;
  }
  parallel_for(parts, parts, [&](long i) {
    run_scan(*s, backward, blocks * i / parts, blocks * (i + 1) / parts);
  });
}

long elman_vector_bytes() { return kBytes; }

}  // extern "C"
