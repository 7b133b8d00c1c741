// Large zeroed buffers that take up memory only where they are written, in huge pages where the system has them.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <utility>

namespace nanochat {

template <typename T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t count) : bytes_(count * sizeof(T) + kSlack) {
    void* found = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (found == MAP_FAILED) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    if (bytes_ >= (size_t{4} << 20)) madvise(found, bytes_, MADV_HUGEPAGE);
#endif
    data_ = static_cast<T*>(found);
  }
  ~Buffer() {
    if (data_) munmap(data_, bytes_);
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
  void swap(Buffer& other) {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  T* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace nanochat
