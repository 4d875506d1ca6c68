// A matrix product of few rows with a constant weight, packed in panels of 16 columns; see product.py.
//
// The weight is most of what such a product reads. It lies in the order in which the inner loop reads it, is fetched
// ahead, and leaves memory once. A group of rows keeps its sums in registers.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstring>
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

constexpr int kLanes = kBytes / sizeof(float);
constexpr int kColumns = 16;                  // of a panel: one cache line
constexpr int kVectors = kColumns / kLanes;   // of a panel's row
constexpr int kRows = 12 / kVectors;          // of a group: 12 sums hide the latency of a multiply-add
constexpr int kDepth = 256;                   // rows of a panel that the first cache holds (16 KB) for the next group
constexpr int kAhead = 64 * kColumns;         // how far a panel is fetched ahead: 4 KB
constexpr int kMostRows = 32;                 // beyond, BLAS is as fast
constexpr int64_t kGrain = 1 << 15;           // weights that are worth a thread

inline Vector load(const float* from) {
  Vector vector;
  std::memcpy(&vector, from, kBytes);
  return vector;
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
    for (int v = 0; v < kVectors; ++v, sums += kLanes) {
      const Vector total = load(sums) + sum[m][v];
      std::memcpy(sums, &total, kBytes);
    }
}

// The number of rows is a constant of the inner loop, so that its sums are registers.
template <int most = kRows>
void multiply_rows(int64_t rows, const float* x, int64_t stride, const float* panel, int64_t depth, float* sums) {
  if constexpr (most > 0) {
    if (rows == most) return multiply<most>(x, stride, panel, depth, sums);
    multiply_rows<most - 1>(rows, x, stride, panel, depth, sums);
  }
}

Tensor packed_product(Tensor x, Tensor packed, Tensor added, int64_t features) {
  const int64_t depth = packed.size(1), panels = packed.size(0), rows = x.numel() / std::max<int64_t>(depth, 1);
  const bool is_bias = added.numel() == features;
  STD_TORCH_CHECK(depth > 0 && x.size(-1) == depth && rows <= kMostRows, "packed_product: x must be [up to 32 rows, ",
                  depth, "]");
  STD_TORCH_CHECK(panels * kColumns >= features && packed.size(2) == kColumns, "packed_product: weight is not packed");
  STD_TORCH_CHECK(is_bias || added.numel() == rows * features, "packed_product: added must be [N] or [rows, N]");
  x = torch::stable::contiguous(x);
  added = torch::stable::contiguous(added);
  std::vector<int64_t> shape(x.sizes().begin(), x.sizes().end());
  shape.back() = features;
  Tensor result = torch::stable::new_empty(x, shape);

  const auto* inputs = static_cast<const float*>(x.data_ptr());
  const auto* weights = static_cast<const float*>(packed.data_ptr());
  const auto* addends = static_cast<const float*>(added.data_ptr());
  auto* results = static_cast<float*>(result.data_ptr());
  const int64_t addend_stride = is_bias ? 0 : features;
  const int64_t groups = (rows + kRows - 1) / kRows, group = (rows + groups - 1) / std::max<int64_t>(groups, 1);

  torch::stable::parallel_for(0, panels, std::max<int64_t>(1, kGrain / (depth * kColumns)), [&](int64_t p, int64_t end) {
    float sums[kMostRows * kColumns] = {};
    for (; p < end; ++p) {
      const int64_t start = p * kColumns, width = std::min<int64_t>(kColumns, features - start);
      for (int64_t m = 0; m < rows; ++m)
        std::copy_n(addends + m * addend_stride + start, width, sums + m * kColumns);
      for (int64_t k = 0; k < depth; k += kDepth)
        for (int64_t m = 0; m < rows; m += group)
          multiply_rows(std::min(group, rows - m), inputs + m * depth + k, depth, weights + (p * depth + k) * kColumns,
                        std::min<int64_t>(kDepth, depth - k), sums + m * kColumns);
      for (int64_t m = 0; m < rows; ++m) std::copy_n(sums + m * kColumns, width, results + m * features + start);
    }
  });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(bac, library) {
  library.def("packed_product(Tensor x, Tensor packed, Tensor added, int features) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(bac, CPU, library) { library.impl("packed_product", TORCH_BOX(&packed_product)); }
