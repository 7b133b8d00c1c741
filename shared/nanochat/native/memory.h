// Large zeroed buffers that take up memory only where they are written, in huge pages where the system has them: what is
// read once a step, gigabytes a second, else waits for the addresses of pages, and hardware fetches up to a page's end.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>
#include <vector>

namespace nanochat {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kLine = 64;  // of a cache

// From one row of `bytes` to the next: an odd number of lines, since lines that are a power of two apart, or half of one
// and so on, would all fall into a few sets of the cache and drive each other out.
constexpr size_t stride_bytes(size_t bytes) { return ((bytes + kLine - 1) / kLine | 1) * kLine; }

template <typename T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t count) : bytes_(count * sizeof(T) + kSlack) {
    // Where it could hold a huge page, room to begin with one.
    mapped_bytes_ = bytes_ + (bytes_ >= kHugePage ? kHugePage : 0);
    mapped_ = mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, kAsWritten, -1, 0);
    if (mapped_ == MAP_FAILED) throw std::bad_alloc();
    auto begin = reinterpret_cast<uintptr_t>(mapped_);
    if (bytes_ >= kHugePage) {
      begin = (begin + kHugePage - 1) / kHugePage * kHugePage;
#ifdef MADV_HUGEPAGE
      madvise(mapped_, mapped_bytes_, MADV_HUGEPAGE);
#endif
    }
    data_ = reinterpret_cast<T*>(begin);
  }
  ~Buffer() {
    if (data_) munmap(mapped_, mapped_bytes_);
  }
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }

  T* get() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  static constexpr size_t kSlack = 64;  // a last vector may be read beyond the end
#ifdef MAP_NORESERVE
  static constexpr int kAsWritten = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
#else
  static constexpr int kAsWritten = MAP_PRIVATE | MAP_ANONYMOUS;
#endif
  void swap(Buffer& other) {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(mapped_, other.mapped_);
    std::swap(mapped_bytes_, other.mapped_bytes_);
  }
  T* data_ = nullptr;
  void* mapped_ = nullptr;
  size_t bytes_ = 0, mapped_bytes_ = 0;
};

// Pieces of large buffers, side by side, so that small ones lie in huge pages too. All are freed together.
class Arena {
 public:
  template <typename T>
  T* take(size_t count) {
    const size_t bytes = (count * sizeof(T) + kLine - 1) / kLine * kLine;
    if (buffers_.empty() || used_ + bytes > room_) {
      const size_t room = std::max(bytes, kBufferBytes);
      buffers_.emplace_back(room);
      room_ = room, used_ = 0;
    }
    used_ += bytes;
    return reinterpret_cast<T*>(buffers_.back().get() + used_ - bytes);
  }

 private:
  static constexpr size_t kBufferBytes = size_t{32} << 20;
  std::vector<Buffer<char>> buffers_;
  size_t used_ = 0, room_ = 0;  // of the last one
};

}  // namespace nanochat
