// Sixteen floats at a time, in the compiler's own vector types: one AVX-512 register, two of AVX2, four of NEON.
// Every sum over lanes is taken in one fixed order, so that a result never depends on what is computed beside it.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

namespace nanochat {

constexpr int kLanes = 16;

// The narrow alignment lets them be loaded from and stored to any float's address.
typedef float f32x16 __attribute__((vector_size(64), aligned(4)));
typedef float f32x8 __attribute__((vector_size(32), aligned(4)));
typedef float f32x4 __attribute__((vector_size(16), aligned(4)));
typedef int32_t i32x16 __attribute__((vector_size(64), aligned(4)));

// The upper half of a float: all of its range with eight bits of precision, in half the memory.
struct bf16 {
  uint16_t bits;
};
typedef uint16_t u16x16 __attribute__((vector_size(32), aligned(2)));
typedef uint32_t u32x16 __attribute__((vector_size(64), aligned(4)));

inline f32x16 load(const bf16* p) {
  return std::bit_cast<f32x16>(__builtin_convertvector(*reinterpret_cast<const u16x16*>(p), u32x16) << 16);
}
inline f32x16 load(const float* p) { return *reinterpret_cast<const f32x16*>(p); }
inline void store(float* p, f32x16 v) { *reinterpret_cast<f32x16*>(p) = v; }
// To the nearest, halves to even. What is no number stays none.
inline void round_to(float v, bf16& out) {
  const uint32_t bits = std::bit_cast<uint32_t>(v);
  out.bits = static_cast<uint16_t>(v == v ? (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 : 0x7FC0);
}
inline void round_to(float v, float& out) { out = v; }
inline f32x16 splat(float v) { return v - f32x16{}; }
constexpr i32x16 kCounting = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// f(0) to f(N - 1) without a loop, the numbers being constants: compilers keep an array in registers where they know every
// index from the start, and store it in each round where they learn it by unrolling.
template <int N, typename F>
[[gnu::always_inline]] inline void unrolled(const F& f) {
  [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
    (f(std::integral_constant<int, I>{}), ...);
  }(std::make_integer_sequence<int, N>{});
}
#define NANOCHAT_INLINE __attribute__((always_inline))

inline f32x16 max(f32x16 a, f32x16 b) { return a > b ? a : b; }

// All lanes as one number, by halves: four operations that wait for each other in place of fifteen. By casts, as GCC before
// version 12 has no shuffles in common with clang.
template <typename Combine>
inline float fold(f32x16 v, const Combine& combine) {
  struct Eights { f32x8 low, high; };
  struct Fours { f32x4 low, high; };
  const Eights eights = std::bit_cast<Eights>(v);
  const Fours fours = std::bit_cast<Fours>(combine(eights.low, eights.high));
  const f32x4 four = combine(fours.low, fours.high);
  return combine(combine(four[0], four[2]), combine(four[1], four[3]));
}
inline float sum(f32x16 v) { return fold(v, [](auto a, auto b) { return a + b; }); }
inline float max(f32x16 v) { return fold(v, [](auto a, auto b) { return a > b ? a : b; }); }

// e^x by 2^n * e^r, |r| <= ln 2 / 2; relative error below 2e-7. Zero below -87, where float32 has no normal number.
inline f32x16 exp(f32x16 x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number, kept in the low bits
  const f32x16 clamped = x < -87.0f ? splat(-87.0f) : (x > 88.0f ? splat(88.0f) : x);
  const f32x16 shifted = clamped * 1.44269504088896341f + kRound;
  const f32x16 n = shifted - kRound;
  const f32x16 r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  f32x16 p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const i32x16 exponent = (std::bit_cast<i32x16>(shifted) - 0x4B400000 + 127) << 23;
  const f32x16 scaled = p * std::bit_cast<f32x16>(exponent);
  return x < -87.0f ? f32x16{} : scaled;
}

inline f32x16 tanh(f32x16 x) { return 1.0f - 2.0f / (exp(2.0f * x) + 1.0f); }

inline float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

inline int round_up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }

// Of the first n of x, which is padded to whole vectors with zeros.
inline float sum_of_squares(const float* x, int n) {
  f32x16 total{};
  for (int i = 0; i < n; i += kLanes) total += load(x + i) * load(x + i);
  return sum(total);
}

// What each element is multiplied by, so that their mean square is 1; float32's machine epsilon, as in the model.
inline float rms_scale(const float* x, int n, int width) {
  return 1.0f / std::sqrt(sum_of_squares(x, n) / static_cast<float>(width) + 1.1920929e-07f);
}

}  // namespace nanochat
