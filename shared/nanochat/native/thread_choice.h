// How many threads a step is shared among: all, unless fewer have turned out to be faster.
//
// A step of a small model is over before a second thread is awake; and where others want the cores, a phase lasts until
// the thread that was put aside is let on again. Both show in the time that steps take. So each size of step keeps the
// times of each number of threads, uses the best, and now and then tries its neighbour. Results do not depend on it.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <vector>

namespace nanochat {

class ThreadChoice {
 public:
  explicit ThreadChoice(int most) {
    for (int n = 1; n < most; n *= 2) counts_.push_back(n);
    counts_.push_back(most);
    for (auto& size : sizes_) size.seconds.assign(counts_.size(), 0.0);
  }

  // For a step of M tokens. observe() is to follow.
  int choose(int M) {
    Size& size = sizes_[index(M)];
    const int num = static_cast<int>(counts_.size());
    const int64_t step = size.num_steps++;
    // All threads first; where that is over in no time, fewer are tried at once, else only now and then.
    if (step < kFirstTries || (step < kFirstTries * num && size.is_short)) {
      size.current = num - 1 - static_cast<int>(step / kFirstTries);
      return counts_[size.current];
    }
    size.current = num - 1;
    for (int i = 0; i < num; ++i)
      if (size.seconds[i] > 0.0 && size.seconds[i] < size.seconds[size.current]) size.current = i;
    size.is_try = false;
    if (step % kPeriod == 0) {
      const int neighbour = size.current + (step / kPeriod % 2 ? -1 : 1);
      size.is_try = neighbour >= 0 && neighbour < num;
      if (size.is_try) size.current = neighbour;
    }
    return counts_[size.current];
  }

  void observe(int M, double seconds) {
    Size& size = sizes_[index(M)];
    double& mean = size.seconds[size.current];
    const double each = seconds / M;
    if (mean == 0.0) {
      mean = each;
    } else if (size.num_steps <= kFirstTries * static_cast<int>(counts_.size())) {
      mean = std::min(mean, each);  // the first steps also fetch memory and wake threads
    } else if (size.is_try && each < mean) {
      mean = each;  // what it was before is long ago, and no accident makes a step faster
    } else {
      // One time far off the others is an accident, which who is a quarter ahead outlives; several are news.
      mean += kNewest * (std::min(each, 2 * mean) - mean);
    }
    if (size.num_steps == kFirstTries) size.is_short = mean * M < kShort_s;
  }

 private:
  static constexpr int kFirstTries = 3, kPeriod = 64;
  static constexpr double kNewest = 0.25, kShort_s = 0.001;

  struct Size {
    std::vector<double> seconds;  // a token, for each count
    int64_t num_steps = 0;
    int current = 0;
    bool is_short = false;  // with all threads
    bool is_try = false;    // of a neighbour, in the step that is under way
  };

  static int index(int M) { return std::bit_width(static_cast<unsigned>(M)) - 1; }

  std::vector<int> counts_;
  std::array<Size, 32> sizes_;
};

}  // namespace nanochat
