// Where threads that share work meet.
#pragma once
#include <atomic>
#include <chrono>
#include <climits>
#if defined(__x86_64__)
#include <emmintrin.h>
#endif
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <sched.h>
#endif

namespace elman {

// A barrier. Threads that all run are microseconds apart, so that one waits by looking again and
// again. One that waits for longer waits for a thread that does not run, because another process
// has its core: it sleeps until it is woken, and leaves its own core to whoever wants it. Then it
// is owed time when the others come back, and all of them run at the same time again. (A thread
// that merely yields is scheduled again as if it had worked, and uses its time up while it waits.)
class Barrier {
 public:
  Barrier() = default;
  Barrier(const Barrier&) = delete;

  // Wait for all of `members`.
  void meet(long members) {
    if (members <= 1) return;
    const unsigned round = round_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == members - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      // Either this sees who sleeps, or who is about to sleep sees the new round.
      round_.store(round + 1, std::memory_order_seq_cst);
      if (sleeping_.load(std::memory_order_seq_cst)) wake();
    } else if (!comes(round)) {
      sleeping_.fetch_add(1, std::memory_order_seq_cst);
      while (round_.load(std::memory_order_seq_cst) == round) sleep(round);
      sleeping_.fetch_sub(1, std::memory_order_relaxed);
    }
  }

 private:
  // How long a thread looks: longer than the work of a stage, shorter than a turn of a scheduler.
  static constexpr std::chrono::microseconds kPatience{50};

  // Whether the round ends while one looks.
  bool comes(unsigned round) const {
    using Clock = std::chrono::steady_clock;
    Clock::time_point end{};
    for (;;) {
      for (int i = 0; i < 64; ++i) {
        if (round_.load(std::memory_order_acquire) != round) return true;
        pause();
      }
      const auto now = Clock::now();
      if (end == Clock::time_point{}) end = now + kPatience;
      if (now >= end) return false;
    }
  }

  static void pause() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

#if defined(__linux__)
  void sleep(unsigned round) { syscall(SYS_futex, &round_, FUTEX_WAIT_PRIVATE, round, nullptr, nullptr, 0); }
  void wake() { syscall(SYS_futex, &round_, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0); }
#else
  void sleep(unsigned) { sched_yield(); }
  void wake() {}
#endif

  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<unsigned> round_{0};
  std::atomic<int> sleeping_{0};
};

}  // namespace elman
