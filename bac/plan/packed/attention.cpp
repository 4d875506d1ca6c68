// Two sublayers of attention with few rows: among the rows themselves, and to the absorbed keys and values of a memory.

#include "sublayer.h"

namespace {

// One head: queries, keys and values are columns of `packed` [rows, 3 width], and results of `to` [rows, width].
void attend(const float* packed, const float* mask, int64_t rows, int64_t width, int64_t size, float scale, float* to) {
  float shares[kMostRows];
  for (int64_t m = 0; m < rows; ++m) {
    const float* query = packed + m * 3 * width;
    for (int64_t n = 0; n < rows; ++n)
      shares[n] = scale * dot(query, packed + n * 3 * width + width, size) + mask[m * rows + n];
    softmax(shares, rows);
    combine(shares, rows, packed + 2 * width, 3 * width, size, to + m * width);
  }
}

std::tuple<Tensor, Tensor> packed_self_attention(Tensor x, Tensor norm, Tensor shift, double eps, Tensor inner,
                                                 Tensor inner_bias, Tensor mask, Tensor outer, Tensor outer_bias,
                                                 int64_t heads, double scale, Tensor rest, bool with_rest) {
  const Normed normed(x, norm, shift, eps);
  const int64_t width = normed.width, rows = normed.rows;
  check_packed(inner, width, 3 * width);
  check_packed(outer, width, width);
  check_size(inner_bias, 3 * width, "the first bias must be three times as wide as x");
  check_size(mask, rows * rows, "the mask must be [rows, rows]");
  STD_TORCH_CHECK(heads > 0 && width % heads == 0, "heads must divide the width of x");
  inner_bias = torch::stable::contiguous(inner_bias);
  mask = torch::stable::contiguous(mask);
  const float *biases = data(inner_bias), *masks = data(mask);
  const auto packed = numbers(3 * rows * width), attended = numbers(rows * width);
  multiply_all(normed.row(0), rows, inner, 3 * width, [&](int64_t m, int64_t start, int64_t columns, const float* sums) {
    each(columns, [&](auto i, auto count) {
      store(packed.get() + m * 3 * width + start + i, load(sums + i, count) + load(biases + start + i, count),
            count);
    });
  });
  const int64_t size = width / heads;
  torch::stable::parallel_for(0, heads, std::max<int64_t>(1, kGrain / (rows * size + 1)), [&](int64_t h, int64_t end) {
    for (; h < end; ++h) attend(packed.get() + h * size, masks, rows, width, size, scale, attended.get() + h * size);
  });
  const Results results(normed, outer_bias, rest, with_rest);
  multiply_all(attended.get(), rows, outer, width, [&](int64_t m, int64_t start, int64_t columns, const float* sums) {
    results.write(m, start, columns, sums);
  });
  return results.both();
}

// Shares are softmax(norm(x) keys' + offset) in every head of S tokens; the feature is shares values + bias.
std::tuple<Tensor, Tensor> absorbed_attention(Tensor x, Tensor norm, Tensor shift, double eps, Tensor keys,
                                              Tensor offset, Tensor values, Tensor bias, int64_t heads,
                                              Tensor rest, bool with_rest) {
  const Normed normed(x, norm, shift, eps);
  const int64_t width = normed.width, rows = normed.rows, tokens = keys.size(0);
  STD_TORCH_CHECK(keys.dim() == 2 && keys.size(1) == width, "keys must be [heads * tokens, ", width, "]");
  STD_TORCH_CHECK(values.dim() == 2 && values.size(0) == tokens && values.size(1) == width, "values must be as keys");
  STD_TORCH_CHECK(heads > 0 && tokens > 0 && tokens % heads == 0, "heads must divide the rows of keys");
  STD_TORCH_CHECK(offset.numel() == tokens || offset.numel() == rows * tokens, "offset must be [1 or rows, ", tokens, "]");
  keys = keys.stride(1) == 1 ? keys : torch::stable::contiguous(keys);
  values = values.stride(1) == 1 ? values : torch::stable::contiguous(values);
  offset = torch::stable::contiguous(offset);
  const int64_t key = keys.stride(0), value = values.stride(0), size = tokens / heads;
  const int64_t stride = offset.numel() == tokens ? 0 : tokens;
  const float *all_keys = data(keys), *all_values = data(values), *offsets = data(offset);
  const auto shares = numbers(tokens), sums = numbers(width);
  const Results results(normed, bias, rest, with_rest);
  for (int64_t m = 0; m < rows; ++m) {
    for (int64_t n = 0; n < tokens; ++n)
      shares[n] = dot(normed.row(m), all_keys + n * key, width) + offsets[m * stride + n];
    for (int64_t h = 0; h < heads; ++h) softmax(shares.get() + h * size, size);
    combine(shares.get(), tokens, all_values, value, width, sums.get());
    results.write(m, 0, width, sums.get());
  }
  return results.both();
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(bac, library) {
  library.def(
      "packed_self_attention(Tensor x, Tensor norm, Tensor shift, float eps, Tensor inner, Tensor inner_bias, "
      "Tensor mask, Tensor outer, Tensor outer_bias, int heads, float scale, Tensor rest, bool with_rest) -> "
      "(Tensor feature, Tensor stream)");
  library.def(
      "absorbed_attention(Tensor x, Tensor norm, Tensor shift, float eps, Tensor keys, Tensor offset, Tensor values, "
      "Tensor bias, int heads, Tensor rest, bool with_rest) -> (Tensor feature, Tensor stream)");
}
STABLE_TORCH_LIBRARY_IMPL(bac, CPU, library) {
  library.impl("packed_self_attention", TORCH_BOX(&packed_self_attention));
  library.impl("absorbed_attention", TORCH_BOX(&absorbed_attention));
}
