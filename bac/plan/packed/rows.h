// What the operators share: numbers in registers, rows times a packed weight, the norm of a row, a softmax.
//
// A chunk has few rows, so the weight is most of what a product reads. It lies in panels of 16 columns, in the order in
// which the inner loop reads it, is fetched ahead, and leaves memory once. A group of rows keeps its sums in registers.

#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <tuple>
#include <type_traits>
#include <vector>

namespace {

using torch::stable::Tensor;

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
typedef float Vector __attribute__((vector_size(kBytes)));
typedef int32_t Whole __attribute__((vector_size(kBytes)));

constexpr int kLanes = kBytes / sizeof(float);
constexpr int kColumns = 16;                  // of a panel: one cache line
constexpr int kVectors = kColumns / kLanes;   // of a panel's row
constexpr int kRows = 12 / kVectors;          // of a group: 12 sums hide the latency of a multiply-add
constexpr int kDepth = 256;                   // rows of a panel that the first cache holds (16 KB) for the next group
constexpr int kAhead = 64 * kColumns;         // how far a panel is fetched ahead: 4 KB
constexpr int kMostRows = 32;                 // beyond, BLAS is as fast
constexpr int64_t kGrain = 1 << 15;           // multiplications that are worth a thread, of one row

inline Vector load(const float* from, size_t count = kLanes) {
  Vector vector = {};
  std::memcpy(&vector, from, count * sizeof(float));
  return vector;
}

inline void store(float* to, Vector vector, size_t count = kLanes) {
  std::memcpy(to, &vector, count * sizeof(float));
}

inline Vector spread(float number) { return Vector{} + number; }

inline float total_of(Vector vector) {
  float sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += vector[lane];
  return sum;
}

// Calls body(first, count) for every register of `size` numbers; the count of a full one is a constant.
template <class Body>
inline void each(int64_t size, Body body) {
  int64_t first = 0;
  for (; first + kLanes <= size; first += kLanes) body(first, std::integral_constant<size_t, kLanes>{});
  if (first < size) body(first, static_cast<size_t>(size - first));
}

// Four sums side by side, since each multiply-add waits for the one before it in its own sum.
inline float dot(const float* x, const float* y, int64_t size) {
  Vector sums[4] = {};
  const int64_t whole = size - size % (4 * kLanes);
  for (int64_t i = 0; i < whole; i += 4 * kLanes)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) sums[j] += load(x + i + j * kLanes) * load(y + i + j * kLanes);
  each(size - whole, [&](auto i, auto count) { sums[0] += load(x + whole + i, count) * load(y + whole + i, count); });
  return total_of((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// to [width] = shares [count] rows [count, width], four registers of it at a time.
inline void combine(const float* shares, int64_t count, const float* rows, int64_t stride, int64_t width, float* to) {
  const int64_t whole = width - width % (4 * kLanes);
  for (int64_t i = 0; i < whole; i += 4 * kLanes) {
    Vector sums[4] = {};
    for (int64_t n = 0; n < count; ++n)
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) sums[j] += shares[n] * load(rows + n * stride + i + j * kLanes);
    for (int j = 0; j < 4; ++j) store(to + i + j * kLanes, sums[j]);
  }
  each(width - whole, [&](auto i, auto size) {
    Vector sum = {};
    for (int64_t n = 0; n < count; ++n) sum += shares[n] * load(rows + n * stride + whole + i, size);
    store(to + whole + i, sum, size);
  });
}

// e^x = 2^n e^r with |r| <= ln(2) / 2; Taylor's polynomial errs by less than a rounding. NaN stays NaN.
inline Vector exponential(Vector x) {
  x = x < -87.f ? spread(-87.f) : x;
  x = x > 88.f ? spread(88.f) : x;
  const float round = 12582912.f;  // 1.5 * 2^23: a number beside it has no fraction
  const Vector n = (x * 1.44269504f + round) - round;
  const Vector r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln(2) in two parts
  Vector y = r * (1.f / 5040) + 1.f / 720;
  for (const float term : {1.f / 120, 1.f / 24, 1.f / 6, 0.5f, 1.f, 1.f}) y = y * r + term;
  const Whole power = (__builtin_convertvector(n, Whole) + 127) << 23;
  Vector scale;
  std::memcpy(&scale, &power, kBytes);
  return y * scale;
}

inline void softmax(float* row, int64_t size) {
  const float largest = *std::max_element(row, row + size);
  Vector sums = {};
  each(size, [&](auto i, auto count) { store(row + i, exponential(load(row + i, count) - largest), count); });
  each(size, [&](auto i, auto count) { sums += load(row + i, count); });
  const float factor = 1 / total_of(sums);
  each(size, [&](auto i, auto count) { store(row + i, factor * load(row + i, count), count); });
}

// Memory that nobody has written yet.
inline std::unique_ptr<float[]> numbers(int64_t size) { return std::unique_ptr<float[]>(new float[size]); }

inline const float* data(const Tensor& tensor) {
  STD_TORCH_CHECK(tensor.scalar_type() == torch::headeronly::ScalarType::Float, "all tensors must be float32");
  return static_cast<const float*>(tensor.data_ptr());
}

inline void check_size(const Tensor& tensor, int64_t size, const char* rule) {
  STD_TORCH_CHECK(tensor.numel() == size, rule, ", which is ", size, " numbers");
}

// sums [rows, 16] += x [rows, depth] panel [depth, 16]. The product begins at zero, not at the sums: next to a large
// addend, every term of it would be rounded.
template <int rows>
void multiply(const float* x, int64_t stride, const float* panel, int64_t depth, float* sums) {
  Vector sum[rows][kVectors] = {};
  for (int64_t k = 0; k < depth; ++k, panel += kColumns) {
    __builtin_prefetch(panel + kAhead);
#pragma GCC unroll 12
    for (int m = 0; m < rows; ++m)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[m][v] += x[m * stride + k] * load(panel + v * kLanes);
  }
  for (int m = 0; m < rows; ++m)
    for (int v = 0; v < kVectors; ++v, sums += kLanes) store(sums, load(sums) + sum[m][v]);
}

// The number of rows is a constant of the inner loop, so that its sums are registers.
template <int most = kRows>
void multiply_rows(int64_t rows, const float* x, int64_t stride, const float* panel, int64_t depth, float* sums) {
  if constexpr (most > 0) {
    if (rows == most) return multiply<most>(x, stride, panel, depth, sums);
    multiply_rows<most - 1>(rows, x, stride, panel, depth, sums);
  }
}

// Calls finish(row, first column, columns, sums) with all of x [rows, K] packed [ceil(N / 16), K, 16], in pieces of 16.
template <class Finish>
void multiply_all(const float* x, int64_t rows, const Tensor& packed, int64_t features, const Finish& finish) {
  const int64_t depth = packed.size(1), panels = packed.size(0);
  const float* weights = data(packed);
  const int64_t groups = (rows + kRows - 1) / kRows, group = (rows + groups - 1) / std::max<int64_t>(groups, 1);
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(depth * kColumns, 1));
  torch::stable::parallel_for(0, panels, grain, [&](int64_t p, int64_t end) {
    float sums[kMostRows * kColumns];
    for (; p < end; ++p) {
      std::fill_n(sums, rows * kColumns, 0.f);
      for (int64_t k = 0; k < depth; k += kDepth)
        for (int64_t m = 0; m < rows; m += group)
          multiply_rows(std::min(group, rows - m), x + m * depth + k, depth, weights + (p * depth + k) * kColumns,
                        std::min<int64_t>(kDepth, depth - k), sums + m * kColumns);
      const int64_t start = p * kColumns, width = std::min<int64_t>(kColumns, features - start);
      for (int64_t m = 0; m < rows; ++m) finish(m, start, width, sums + m * kColumns);
    }
  });
}

inline void check_packed(const Tensor& packed, int64_t depth, int64_t features) {
  STD_TORCH_CHECK(packed.dim() == 3 && packed.size(2) == kColumns && packed.size(1) == depth &&
                      packed.size(0) == (features + kColumns - 1) / kColumns && packed.is_contiguous(),
                  "a weight [", depth, ", ", features, "] is not packed");
}

}  // namespace
