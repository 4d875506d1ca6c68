// Products of few rows with a constant weight: x W + added, and norm(x) W + bias. See library.py.

#include "sublayer.h"

namespace {

Tensor packed_product(Tensor x, Tensor packed, Tensor added, int64_t features) {
  const int64_t depth = packed.size(1), rows = x.numel() / std::max<int64_t>(depth, 1);
  const bool is_bias = added.numel() == features;
  STD_TORCH_CHECK(depth > 0 && x.size(-1) == depth && rows <= kMostRows, "packed_product: x must be [up to 32 rows, ",
                  depth, "]");
  check_packed(packed, depth, features);
  STD_TORCH_CHECK(is_bias || added.numel() == rows * features, "packed_product: added must be [N] or [rows, N]");
  x = torch::stable::contiguous(x);
  added = torch::stable::contiguous(added);
  std::vector<int64_t> shape(x.sizes().begin(), x.sizes().end());
  shape.back() = features;
  Tensor result = torch::stable::new_empty(x, shape);
  const float* addends = data(added);
  auto* results = static_cast<float*>(result.data_ptr());
  const int64_t stride = is_bias ? 0 : features;
  multiply_all(data(x), rows, packed, features, [&](int64_t m, int64_t start, int64_t width, const float* sums) {
    each(width, [&](auto i, auto count) {
      store(results + m * features + start + i, load(addends + m * stride + start + i, count) + load(sums + i, count),
            count);
    });
  });
  return result;
}

Tensor packed_norm_product(Tensor x, Tensor norm, Tensor shift, double eps, Tensor packed, Tensor bias) {
  const Normed normed(x, norm, shift, eps);
  const int64_t features = bias.numel();
  check_packed(packed, normed.width, features);
  bias = torch::stable::contiguous(bias);
  std::vector<int64_t> shape(normed.x.sizes().begin(), normed.x.sizes().end());
  shape.back() = features;
  Tensor result = torch::stable::new_empty(normed.x, shape);
  auto* results = static_cast<float*>(result.data_ptr());
  const float* biases = data(bias);
  multiply_all(normed.row(0), normed.rows, packed, features,
               [&](int64_t m, int64_t start, int64_t width, const float* sums) {
                 each(width, [&](auto i, auto count) {
                   store(results + m * features + start + i, load(biases + start + i, count) + load(sums + i, count),
                         count);
                 });
               });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(bac, library) {
  library.def("packed_product(Tensor x, Tensor packed, Tensor added, int features) -> Tensor");
  library.def(
      "packed_norm_product(Tensor x, Tensor norm, Tensor shift, float eps, Tensor packed, Tensor bias) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(bac, CPU, library) {
  library.impl("packed_product", TORCH_BOX(&packed_product));
  library.impl("packed_norm_product", TORCH_BOX(&packed_norm_product));
}
