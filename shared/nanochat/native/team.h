// Threads that run one function together and meet at barriers: a step of the model wakes them once, not once a product.
// Whoever waits spins for some microseconds, then sleeps: on cores that others want too, spinning keeps the very thread
// from running that is waited for.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace nanochat {

inline void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Some 20 to 60 microseconds: longer than a phase's threads are apart on free cores.
constexpr int kSpins = 2000;

inline void wait_for_change(std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    pause_briefly();
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

class Team {
 public:
  // Throws std::system_error where the system gives no more threads.
  explicit Team(int num_threads) : num_threads_(num_threads), active_(num_threads) {
    try {
      for (int id = 1; id < num_threads; ++id) threads_.emplace_back([this, id] { work(id); });
    } catch (...) {
      stop();
      throw;
    }
  }
  ~Team() { stop(); }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int num_threads() const { return num_threads_; }
  int num_active() const { return active_; }

  // job(thread) on the first `active` threads, the caller's being 0; returns once all are done.
  void run(int active, const std::function<void(int)>& job) {
    active_ = active;
    job_ = &job;
    for (auto& counter : counters_) counter.store(0, std::memory_order_relaxed);
    if (active > 1) {
      // Number of the run and of its threads in one word: who wakes late must not take one run's for the other's.
      start_.store(((start_.load() >> kActiveBits) + 1) << kActiveBits | active, std::memory_order_release);
      start_.notify_all();
    }
    job(0);
    meet();
  }

  // Nobody goes on before all are here.
  void meet() {
    // Read before arriving: once all have, the next run may have another number.
    const int active = active_;
    if (active == 1) return;
    const uint32_t round = round_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == active - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
      round_.notify_all();
    } else {
      wait_for_change(round_, round);
    }
  }

  // Tasks 0 to count - 1, each on whichever thread is free, then a meeting. Phases of one run have numbers of their own.
  template <typename Task>
  void share(int phase, int count, const Task& task) {
    auto& next = counters_[phase];
    for (int i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) task(i);
    meet();
  }

  void reserve_phases(int count) {
    if (static_cast<int>(counters_.size()) < count) counters_ = std::vector<std::atomic<int>>(count);
  }

 private:
  static constexpr int kActiveBits = 10;  // library.py's MAX_THREADS are what they hold

  void stop() {
    is_stopping_ = true;
    start_.store(~start_.load(), std::memory_order_release);
    start_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

  void work(int id) {
    uint32_t seen = 0;
    while (true) {
      wait_for_change(start_, seen);
      seen = start_.load(std::memory_order_acquire);
      if (is_stopping_) return;
      if (id >= static_cast<int>(seen & ((1 << kActiveBits) - 1))) continue;
      (*job_)(id);
      meet();
    }
  }

  const int num_threads_;
  int active_;
  const std::function<void(int)>* job_ = nullptr;
  std::vector<std::atomic<int>> counters_;
  std::atomic<uint32_t> start_{0};
  std::atomic<uint32_t> round_{0};
  std::atomic<int> arrived_{0};
  std::atomic<bool> is_stopping_{false};
  std::vector<std::thread> threads_;
};

}  // namespace nanochat
