// Products of whole matrices: the maps of the input and the gradients of the weights.
//
// C = A B by pieces: some columns of C, which stay in the last cache; of k, so that a piece of B fits
// there, too; of rows of A, which stay in the second cache while B goes by. Every element of C is
// summed in the order of k, whatever the number of rows or threads.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <memory>

#include "pool.hpp"
#include "product.hpp"
#include "barrier.hpp"

namespace elman {

constexpr long kDepth = 512;  // of k at a time
constexpr long kTall = 16;    // groups of kRows rows at a time
constexpr long kWide = 32;    // blocks of columns at a time

class Space {
 public:
  explicit Space(long count)
      : data_(static_cast<real*>(std::aligned_alloc(64, (count * sizeof(real) + 63) / 64 * 64))) {}
  ~Space() { std::free(data_); }
  Space(const Space&) = delete;
  real* data() const { return data_; }

 private:
  real* data_;
};

// Element (i, j) of a matrix is at its address + i * down + j * across.
struct MatrixProduct {
  const real* a;
  long a_down, a_across;
  const real* b;
  long b_down, b_across;
  long rows, depth, columns;
  real* out;  // row i at out + i * out_row
  long out_row;
  const real* bias;  // a row that every row of C begins with, or null
  long add;          // to what is there
  long threads;

  void run() const {
    const Space packed(packed_size(piece(), std::min(columns, kWide * kBlock)));
    Barrier barrier;
    parallel(rows * depth * columns < 1 << 16 ? 1 : threads, [&](long member, long members) { work(member, members, packed.data(), barrier); });
  }

 private:
  long pieces() const { return std::max(1L, (depth + kDepth - 1) / kDepth); }
  long piece() const { return std::max(1L, (depth + pieces() - 1) / pieces()); }
  long groups() const { return (rows + kRows - 1) / kRows; }
  long row(long group) const { return rows * group / groups(); }

  void work(long member, long members, real* b_packed, Barrier& barrier) const {
    const bool turned = a_across != 1;
    const Space a_packed(turned ? kTall * kRows * piece() : 0);
    const long all = blocks(columns), parts = (all + kWide - 1) / kWide;
    for (long part = 0; part < parts; ++part) {
      const long from = all * part / parts, to = all * (part + 1) / parts;
      // Threads share the rows, or the columns where there are more of those.
      const bool by_rows = groups() >= 4 * members || groups() >= to - from;
      const auto mine = [&](long count, long at) { return count * at / members; };
      const long first_group = by_rows ? mine(groups(), member) : 0;
      const long last_group = by_rows ? mine(groups(), member + 1) : groups();
      const long first_pack = from + mine(to - from, member), last_pack = from + mine(to - from, member + 1);
      const long first_block = by_rows ? from : first_pack, last_block = by_rows ? to : last_pack;
      for (long k = 0; k < std::max(1L, depth); k += piece()) {
        const long deep = std::min(piece(), depth - k);
        real* packed = b_packed - from * kBlock * deep;
        pack(b + k * b_down, b_down, b_across, deep, columns, packed, first_pack, last_pack);
        barrier.meet(members);
        for (long group = first_group; group < last_group; group += kTall) {
          const long end = std::min(last_group, group + kTall);
          if (turned) pack_groups(group, end, k, deep, a_packed.data());
          for (long block = first_block; block < last_block; ++block)
            for (long g = group; g < end; ++g)
              tile(g, block, k, deep, turned ? a_packed.data() + (g - group) * kRows * piece() : nullptr,
                   packed);
        }
        barrier.meet(members);
      }
    }
  }

  // By k, so that memory is read in the order in which it lies.
  void pack_groups(long first, long last, long k, long deep, real* packed) const {
    const long count = last - first, apart = kRows * piece();
    long starts[kTall + 1];
    for (long g = 0; g <= count; ++g) starts[g] = row(first + g);
    const bool whole = a_down == 1 && starts[count - 1] + kRows <= rows;
    for (long j = 0; j < deep; ++j) {
      const real* in = a + (k + j) * a_across;
      real* to = packed + j * kRows;
      if (whole) {
        for (long g = 0; g < count; ++g) {
          __builtin_prefetch(in + 8 * a_across + starts[g]);  // a page a row: the machine sees no pattern
          std::memcpy(to + g * apart, in + starts[g], kRows * sizeof(real));
        }
      } else {
        for (long g = 0; g < count; ++g)
          for (long r = starts[g]; r < starts[g + 1]; ++r) to[g * apart + r - starts[g]] = in[r * a_down];
      }
    }
  }

  void tile(long group, long block, long k, long deep, const real* a_packed, const real* b_packed) const {
    const long from = row(group), count = row(group + 1) - from;
    const long left = std::min(kBlock, columns - block * kBlock);
    real* c = out + from * out_row + block * kBlock;
    const bool adds = k > 0 || add;
    const real* more = adds ? c : bias ? bias + block * kBlock : nullptr;
    long more_row = adds ? out_row : 0;
    if (adds)
      for (long r = 0; r < count; ++r)
        for (long j = 0; j < left; j += 64 / sizeof(real)) __builtin_prefetch(c + r * out_row + j, 1);
    real part[kRows * kBlock];  // of the last block, which has fewer columns
    const bool whole = left == kBlock;
    if (!whole && more) {
      for (long r = 0; r < count; ++r)
        std::memcpy(part + r * kBlock, more + r * more_row, left * sizeof(real));
      more = part, more_row = kBlock;
    }
    real* to = whole ? c : part;
    const long to_row = whole ? out_row : kBlock;
    const real* w = b_packed + block * kBlock * deep;
    if (a_packed)
      tile_for<true>(count)(a_packed, 0, w, 0, deep, to, to_row, more, more_row);
    else
      tile_for<false>(count)(a + from * a_down + k, a_down, w, 0, deep, to, to_row, more, more_row);
    if (!whole)
      for (long r = 0; r < count; ++r) std::memcpy(c + r * out_row, part + r * kBlock, left * sizeof(real));
  }
};

}  // namespace elman
