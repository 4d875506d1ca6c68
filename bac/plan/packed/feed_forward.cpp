// A feed-forward sublayer: GELU(norm(x) U + u) D + d.

#include "sublayer.h"

namespace {

// With erfc by Abramowitz and Stegun, 7.1.26: its error is 1.5e-7.
inline Vector gelu(Vector x) {
  const Vector size = x < 0.f ? -x : x;
  const Vector t = 1.f / (1.f + 0.3275911f * 0.70710678f * size);
  Vector y = 1.061405429f * t - 1.453152027f;
  for (const float term : {1.421413741f, -0.284496736f, 0.254829592f}) y = y * t + term;
  const Vector half = 0.5f * y * t * exponential(-0.5f * x * x);  // of erfc(|x| / sqrt(2))
  return x * (x < 0.f ? half : 1.f - half);
}

// (1 + tanh(u)) / 2 = 1 / (1 + e^-2u)
inline Vector gelu_by_tanh(Vector x) {
  const Vector u = 0.79788456f * (x + 0.044715f * x * x * x);
  return x / (1.f + exponential(-2.f * u));
}

std::tuple<Tensor, Tensor> packed_feed_forward(Tensor x, Tensor norm, Tensor shift, double eps, Tensor up,
                                               Tensor up_bias, Tensor down, Tensor down_bias, bool by_tanh, Tensor rest,
                                               bool with_rest) {
  const Normed normed(x, norm, shift, eps);
  const int64_t hidden = up_bias.numel(), width = normed.width;
  check_packed(up, width, hidden);
  check_packed(down, hidden, width);
  up_bias = torch::stable::contiguous(up_bias);
  const float* biases = data(up_bias);
  const auto units = numbers(normed.rows * hidden);
  multiply_all(normed.row(0), normed.rows, up, hidden, [&](int64_t m, int64_t start, int64_t columns, const float* sums) {
    each(columns, [&](auto i, auto count) {
      const Vector value = load(sums + i, count) + load(biases + start + i, count);
      store(units.get() + m * hidden + start + i, by_tanh ? gelu_by_tanh(value) : gelu(value), count);
    });
  });
  const Results results(normed, down_bias, rest, with_rest);
  multiply_all(units.get(), normed.rows, down, width, [&](int64_t m, int64_t start, int64_t columns, const float* sums) {
    results.write(m, start, columns, sums);
  });
  return results.both();
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(bac, library) {
  library.def(
      "packed_feed_forward(Tensor x, Tensor norm, Tensor shift, float eps, Tensor up, Tensor up_bias, Tensor down, "
      "Tensor down_bias, bool by_tanh, Tensor rest, bool with_rest) -> (Tensor feature, Tensor stream)");
}
STABLE_TORCH_LIBRARY_IMPL(bac, CPU, library) { library.impl("packed_feed_forward", TORCH_BOX(&packed_feed_forward)); }
