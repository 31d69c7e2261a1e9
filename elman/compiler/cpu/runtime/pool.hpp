// The threads of PyTorch's OpenMP library, through the functions that compiled pragmas call.
//
// GCC's libgomp, LLVM's libomp and Intel's all export them. With pragmas, clang would call a library
// of its own, with a second pool of threads beside PyTorch's, and would need its header.
#pragma once

extern "C" {
void GOMP_parallel(void (*work)(void*), void* data, unsigned threads, unsigned flags);
int omp_get_thread_num();
int omp_get_num_threads();
}

namespace elman {

// work(member, members) on each of at most `threads` threads. One works without the pool: after a
// fork there is none.
template <class Work>
void parallel(long threads, Work work) {
  if (threads <= 1) {
    work(0L, 1L);
    return;
  }
  GOMP_parallel([](void* data) { (*static_cast<Work*>(data))(long{omp_get_thread_num()}, long{omp_get_num_threads()}); },
                &work, static_cast<unsigned>(threads), 0);
}

// item(0), …, item(count - 1), shared out in turns.
template <class Item>
void parallel_for(long threads, long count, Item item) {
  parallel(threads < count ? threads : count, [&](long member, long members) {
    for (long i = member; i < count; i += members) item(i);
  });
}

}  // namespace elman
