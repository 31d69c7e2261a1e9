// Threads that work on the same rows, and meet at a barrier.
#pragma once
#include <atomic>
#if defined(__x86_64__)
#include <emmintrin.h>
#endif
#include <sched.h>

namespace elman {

class Team {
 public:
  Team() = default;
  Team(const Team&) = delete;

  void start(int members) { members_ = members; }
  int members() const { return members_; }

  // Wait for the others. They are a microsecond apart, so it spins; where the machine has fewer
  // cores than threads, it lets the others run.
  void meet() {
    if (members_ == 1) return;
    const unsigned round = round_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == members_ - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
      if (spins < 4000) {
#if defined(__x86_64__)
        _mm_pause();
#elif defined(__aarch64__)
        asm volatile("yield");
#endif
      } else {
        sched_yield();
      }
    }
  }

 private:
  int members_ = 1;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<unsigned> round_{0};
};

}  // namespace elman
