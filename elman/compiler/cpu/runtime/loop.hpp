// The loop over time.
#pragma once
#include <algorithm>
#include <vector>

#include "product.hpp"
#include "program.hpp"
#include "barrier.hpp"

namespace elman {

// One member's part of a team's work on the rows from `begin` to `end`.
class Worker {
 public:
  Worker(const Program& p, Barrier& barrier, long member, long members, long begin, long end)
      : p_(p), barrier_(barrier), member_(member), members_(members), begin_(begin), end_(end),
        before_(p.state_count), after_(p.state_count), base_(p.buffer_count) {
    for (long s = 0; s < p.stage_count; ++s)
      for (long f = 0; f < p.stages[s].functions; ++f)
        slots_ = std::max(slots_, p.functions[p.stages[s].first_function + f].slots);
    pointers_.resize(slots_);
    strides_.resize(slots_);
  }

  void run() {
    for (long k = 0; k < p_.steps; ++k) {
      const long t = p_.reverse ? p_.steps - 1 - k : k;
      prepare(t);
      for (long s = 0; s < p_.stage_count; ++s) stage(p_.stages[s]);
      finish(t);
    }
    keep_last();
  }

 private:
  // The rows of this member, where work is shared by rows.
  long my_begin() const { return begin_ + (end_ - begin_) * member_ / members_; }
  long my_end() const { return begin_ + (end_ - begin_) * (member_ + 1) / members_; }

  bool dead(long t, long b) const { return p_.lengths && t >= p_.lengths[b]; }
  bool again(long t, long b) const { return p_.resets && p_.resets[t * p_.batch + b]; }

  template <class Test>
  bool any(Test test) const {
    for (long b = begin_; b < end_; ++b)
      if (test(b)) return true;
    return false;
  }

  // Where each state before this step lies, and each buffer.
  void prepare(long t) {
    const bool some_dead = p_.lengths && any([&](long b) { return dead(t, b); });
    const bool some_again = p_.resets && any([&](long b) { return again(t, b); });
    bool copied = false;
    for (long i = 0; i < p_.state_count; ++i) {
      const State& s = p_.states[i];
      // The backward pass reads the forward pass's states, which came the other way.
      const bool reverse = s.past ? !p_.reverse : p_.reverse;
      const long earlier = reverse ? t + 1 : t - 1;
      const bool first = earlier < 0 || earlier >= p_.steps;
      real* before = first ? s.first : slot(s, earlier);
      const bool gradient = p_.backward && !s.past;
      const bool change = gradient ? (s.added || some_dead) : (some_again && s.again);
      if (change) {
        for (long b = my_begin(); b < my_end(); ++b) {
          real* out = s.present + b * s.width;
          const real* in = before + b * s.width;
          if (gradient) {
            const real* added = s.added ? s.added + (t * p_.batch + b) * s.width : nullptr;
            if (added)
              add_rows(out, in, added, s.width);
            else
              std::memcpy(out, in, s.width * sizeof(real));
          } else {
            std::memcpy(out, again(t, b) ? s.again + b * s.width : in, s.width * sizeof(real));
          }
        }
        before = s.present;
        copied = true;
      }
      before_[i] = before;
      after_[i] = s.past ? nullptr : slot(s, t);
      // The gradient of a row past its end goes by: the step itself sees zeros.
      if (gradient && some_dead) {
        for (long b = my_begin(); b < my_end(); ++b)
          if (dead(t, b)) {
            std::memcpy(after_[i] + b * s.width, before + b * s.width, s.width * sizeof(real));
            std::memset(before + b * s.width, 0, s.width * sizeof(real));
          }
      }
    }
    if (p_.backward && some_dead) keep_passing(t);
    if (copied) barrier_.meet(members_);
    for (long i = 0; i < p_.buffer_count; ++i) {
      const Buffer& b = p_.buffers[i];
      base_[i] = b.place == kFixed ? b.data + t * b.step
                                   : (b.place == kBefore ? before_[b.state] : after_[b.state]);
    }
    time_ = t;
    some_dead_ = some_dead;
    some_again_ = some_again;
  }

  real* slot(const State& s, long t) const {
    return s.history + (s.slots == p_.steps ? t : t & 1) * p_.batch * s.width;
  }

  static void add_rows(real* out, const real* a, const real* b, long n) {
    for (long j = 0; j < n; ++j) out[j] = a[j] + b[j];
  }

  // What goes by this step for rows past their end is kept aside while the step runs.
  void keep_passing(long t) {
    passing_.clear();
    for (long i = 0; i < p_.state_count; ++i) {
      const State& s = p_.states[i];
      if (s.past) continue;
      for (long b = my_begin(); b < my_end(); ++b)
        if (dead(t, b)) {
          const real* row = after_[i] + b * s.width;
          passing_.insert(passing_.end(), row, row + s.width);
        }
    }
  }

  void stage(const Stage& stage) {
    for (long i = 0; i < stage.products; ++i) multiply(p_.products[stage.first_product + i]);
    if (stage.products) barrier_.meet(members_);
    for (long i = 0; i < stage.functions; ++i) apply(p_.functions[stage.first_function + i]);
    if (stage.functions) barrier_.meet(members_);
  }

  // Rows in equal groups of at most kRows, columns in blocks; each member takes a run of them.
  void multiply(const Product& product) {
    const long groups = (end_ - begin_ + kRows - 1) / kRows;
    const long items = blocks(product.columns) * groups;
    const long first = items * member_ / members_;
    const long last = items * (member_ + 1) / members_;
    if (groups == 1) return multiply(product, first, last, 0, 1, 1);
    for (long item = first; item < last;) {
      const long block = item / groups, end = std::min(last, (block + 1) * groups);
      multiply(product, block, block + 1, item - block * groups, end - block * groups, groups);
      item = end;
    }
  }

  // The blocks from `first` to `last`, for some of the groups of rows.
  void multiply(const Product& product, long first, long last, long group, long end, long groups) {
    if (first == last) return;
    const Buffer& in = p_.buffers[product.source];
    const Buffer& out = p_.buffers[product.target];
    const real* a = base_[product.source];
    real* c = base_[product.target];
    const long rows = end_ - begin_, next = kBlock * product.depth;
    if (!product.packed) {
      const long from = begin_ + rows * group / groups, to = begin_ + rows * end / groups;
      const long column = first * kBlock, until = std::min(last * kBlock, product.columns);
      return rows_times_rows(a + from * in.row, in.row, to - from, product.matrix + column * product.across,
                             product.across, product.depth, c + from * out.row + column, out.row, until - column);
    }
    const long pieces = std::max(1L, (product.depth + kPiece - 1) / kPiece);
    for (long piece = 0; piece < pieces; ++piece) {
      const long k = product.depth * piece / pieces;
      const long deep = product.depth * (piece + 1) / pieces - k;
      for (long g = group; g < end; ++g) {
        const long from = begin_ + rows * g / groups, to = begin_ + rows * (g + 1) / groups;
        kernel_for(to - from)(a + from * in.row + k, in.row, product.packed + k * kBlock, next, deep,
                              c + from * out.row, out.row, product.columns, first, last, piece > 0);
      }
    }
  }

  void apply(const Function& f) {
    long from = begin_, to = end_, begin = 0, end = f.width;
    if (members_ > 1) {
      if (f.whole_rows || end_ - begin_ >= members_) {
        from = my_begin();
        to = my_end();
      } else {
        const long vectors = (f.width + N - 1) / N;
        begin = std::min(f.width, vectors * member_ / members_ * N);
        end = std::min(f.width, vectors * (member_ + 1) / members_ * N);
        if (begin == end) return;
      }
    }
    for (long i = 0; i < f.slots; ++i) {
      const Buffer& b = p_.buffers[f.buffers[i]];
      strides_[i] = b.row;
      pointers_[i] = base_[f.buffers[i]] + from * b.row + f.offsets[i];
    }
    for (long b = from; b < to; ++b) {
      // A row past its end is not computed: what it would read may lie outside a function's domain.
      if (!some_dead_ || !dead(time_, b)) f.run(pointers_.data(), begin, end);
      for (long i = 0; i < f.slots; ++i) pointers_[i] += strides_[i];
    }
  }

  // Rows past their end keep their state; a reset takes the gradient.
  void finish(long t) {
    if (!some_dead_ && !(some_again_ && p_.backward)) return;
    if (some_dead_) zero_dead_rows(t);
    const real* passing = passing_.data();
    for (long i = 0; i < p_.state_count; ++i) {
      const State& s = p_.states[i];
      if (s.past) continue;
      for (long b = my_begin(); b < my_end(); ++b) {
        real* after = after_[i] + b * s.width;
        if (dead(t, b)) {
          if (p_.backward) {
            std::memcpy(after, passing, s.width * sizeof(real));
            passing += s.width;
          } else {
            std::memcpy(after, before_[i] + b * s.width, s.width * sizeof(real));
          }
        }
        if (p_.backward && again(t, b)) {
          if (s.again_out) add_rows(s.again_out + b * s.width, s.again_out + b * s.width, after, s.width);
          std::memset(after, 0, s.width * sizeof(real));
        }
      }
    }
    barrier_.meet(members_);
  }

  void zero_dead_rows(long t) {
    for (long i = 0; i < p_.buffer_count; ++i) {
      const Buffer& buffer = p_.buffers[i];
      if (!buffer.zeroed) continue;
      for (long b = my_begin(); b < my_end(); ++b)
        if (dead(t, b)) std::memset(base_[i] + b * buffer.row, 0, buffer.width * sizeof(real));
    }
  }

  void keep_last() {
    const long t = p_.reverse ? 0 : p_.steps - 1;
    for (long i = 0; i < p_.state_count; ++i) {
      const State& s = p_.states[i];
      if (!s.last) continue;
      const long b = my_begin();
      std::memcpy(s.last + b * s.width, slot(s, t) + b * s.width,
                  (my_end() - b) * s.width * sizeof(real));
    }
  }

  const Program& p_;
  Barrier& barrier_;
  const long member_, members_;
  const long begin_, end_;
  std::vector<real*> before_, after_, base_;
  std::vector<real*> pointers_;
  std::vector<long> strides_;
  std::vector<real> passing_;
  long slots_ = 0, time_ = 0;
  bool some_dead_ = false, some_again_ = false;
};

}  // namespace elman
