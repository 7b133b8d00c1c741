// Threads that run one function together and meet at barriers: a step of the model wakes them once, not once a product.
// Whoever waits spins for some microseconds, then sleeps: on cores that others want too, spinning keeps the very thread
// from running that is waited for.
#pragma once

#include <atomic>
#include <cassert>
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

// Memory that a thread reads soon: it asks for it where it would only spin.
struct Ahead {
  const char *at = nullptr, *end = nullptr;

  // Two lines of a cache; false where nothing is left to ask for.
  bool ask() {
    if (at >= end) return false;
    __builtin_prefetch(at, 0, 2);
    __builtin_prefetch(at + kLineBytes, 0, 2);
    at += 2 * kLineBytes;
    return true;
  }

 private:
  static constexpr int kLineBytes = 64;
};

inline void wait_for_change(std::atomic<uint32_t>& value, uint32_t old, Ahead& ahead) {
  for (int i = 0; i < kSpins;) {
    if (value.load(std::memory_order_acquire) != old) return;
    if (ahead.ask()) continue;
    pause_briefly();
    ++i;
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

// Numbers from begin to end - 1.
struct Range {
  int begin, end;
  int size() const { return end - begin; }
  bool contains(int i) const { return begin <= i && i < end; }
};

class Team {
 public:
  // Runs have at most num_phases calls of share(). Throws std::system_error where the system gives no more threads.
  Team(int num_threads, int num_phases)
      : num_threads_(num_threads),
        active_(num_threads),
        phases_((num_phases + kCountersInLine - 1) / kCountersInLine * kCountersInLine),
        counters_(static_cast<size_t>(num_threads) * phases_) {
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

  // One thread's place in a run. All of its members go through the same phases in the same order.
  class Member {
   public:
    Member(Team& team, int thread) : thread(thread), team_(team) {}

    const int thread;
    Ahead ahead;  // of what comes after this phase; asked for at this meeting and the next ones

    // Of `count` tasks, those that are this thread's own: one after the other, as many as another has, give or take one.
    Range own(int count) const { return team_.own(thread, count); }

    // Tasks 0 to count - 1, then a meeting. Whoever is done with its own takes what others have left, the first of it: that
    // its owner may have asked memory for it costs little so near the end.
    template <typename Task>
    void share(int count, const Task& task) {
      assert(phase_ < team_.phases_);
      for (int i = 0; i < team_.active_; ++i) {
        const int owner = (thread + i) % team_.active_;
        const Range tasks = team_.own(owner, count);
        auto& next = team_.counter(owner, phase_);
        while (next.load(std::memory_order_relaxed) < tasks.size()) {
          const int taken = next.fetch_add(1, std::memory_order_relaxed);
          if (taken < tasks.size()) task(tasks.begin + taken);
        }
      }
      ++phase_;
      team_.meet(ahead);
    }

   private:
    Team& team_;
    size_t phase_ = 0;
  };

  // job, as each of the first `active` threads, the caller's being 0; returns once all are done.
  void run(int active, const std::function<void(Member&)>& job) {
    active_ = active;
    job_ = &job;
    for (size_t i = 0; i < active * phases_; ++i) counters_[i].store(0, std::memory_order_relaxed);
    if (active > 1) {
      // Number of the run and of its threads in one word: who wakes late must not take one run's for the other's.
      start_.store(((start_.load() >> kActiveBits) + 1) << kActiveBits | active, std::memory_order_release);
      start_.notify_all();
    }
    join(0);
  }

 private:
  static constexpr int kCountersInLine = 64 / sizeof(std::atomic<int>);
  static constexpr int kActiveBits = 10;  // library.py's MAX_THREADS are what they hold

  void stop() {
    is_stopping_ = true;
    start_.store(~start_.load(), std::memory_order_release);
    start_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

  void work(int id) {
    uint32_t seen = 0;
    Ahead nothing;
    while (true) {
      wait_for_change(start_, seen, nothing);
      seen = start_.load(std::memory_order_acquire);
      if (is_stopping_) return;
      if (id >= static_cast<int>(seen & ((1 << kActiveBits) - 1))) continue;
      join(id);
    }
  }

  void join(int thread) {
    Member member(*this, thread);
    (*job_)(member);
    meet(member.ahead);
  }

  // Nobody goes on before all are here.
  void meet(Ahead& ahead) {
    // Read before arriving: once all have, the next run may have another number.
    const int active = active_;
    if (active == 1) return;
    const uint32_t round = round_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == active - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
      round_.notify_all();
    } else {
      wait_for_change(round_, round, ahead);
    }
  }

  Range own(int thread, int count) const {
    const auto begin = [&](int64_t i) { return static_cast<int>(i * count / active_); };
    return {begin(thread), begin(thread + 1)};
  }

  // Of a thread's own tasks in a phase, those that were taken.
  std::atomic<int>& counter(int thread, size_t phase) { return counters_[thread * phases_ + phase]; }

  const int num_threads_;
  int active_;
  const std::function<void(Member&)>* job_ = nullptr;
  const size_t phases_;  // whole lines of a cache: threads count without disturbing each other
  std::vector<std::atomic<int>> counters_;
  std::atomic<uint32_t> start_{0};
  std::atomic<uint32_t> round_{0};
  std::atomic<int> arrived_{0};
  std::atomic<bool> is_stopping_{false};
  std::vector<std::thread> threads_;
};

}  // namespace nanochat
