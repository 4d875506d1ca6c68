// A sublayer of a transformer: what it makes of the norm of its rows is its feature, and is added to the rows.

#pragma once

#include "rows.h"

namespace {

// Rows [rows, width] after a layer norm; weight and shift are [width].
struct Normed {
  Tensor x;
  int64_t rows, width;
  std::unique_ptr<float[]> values;

  Normed(const Tensor& given, Tensor weight, Tensor shift, double eps) : x(torch::stable::contiguous(given)) {
    STD_TORCH_CHECK(x.dim() > 0, "x must be rows");
    width = x.size(-1);
    rows = x.numel() / std::max<int64_t>(width, 1);
    STD_TORCH_CHECK(width > 0 && rows <= kMostRows, "x must be up to 32 rows");
    check_size(weight, width, "the norm's weight must be as wide as x");
    check_size(shift, width, "the norm's shift must be as wide as x");
    weight = torch::stable::contiguous(weight);
    shift = torch::stable::contiguous(shift);
    values = numbers(rows * width);
    const float *from = data(x), *weights = data(weight), *shifts = data(shift);
    for (int64_t m = 0; m < rows; ++m) normalise(from + m * width, weights, shifts, eps, values.get() + m * width);
  }

  const float* row(int64_t m) const { return values.get() + m * width; }

 private:
  void normalise(const float* from, const float* weight, const float* shift, double eps, float* to) const {
    Vector sum = {};
    each(width, [&](auto i, auto count) { sum += load(from + i, count); });
    const float mean = total_of(sum) / width;
    each(width, [&](auto i, auto count) { store(to + i, load(from + i, count) - mean, count); });
    const float factor = 1 / std::sqrt(dot(to, to, width) / width + static_cast<float>(eps));
    each(width, [&](auto i, auto count) {
      store(to + i, load(to + i, count) * factor * load(weight + i, count) + load(shift + i, count), count);
    });
  }
};

// The two results of a sublayer, in the shape of its rows: its feature, and the stream x + feature + rest. The rest,
// [rows, width] or [width], is what else goes into the same sum; it is part of the first result if asked for.
struct Results {
  const float* x;
  int64_t width;
  Tensor bias, rest, feature, stream;
  int64_t stride;  // of the rest
  bool with_rest;
  const float *biases, *rests;  // a tensor's pointer is asked for once: the inner loops are short
  float *features, *streams;

  Results(const Normed& normed, const Tensor& bias, const Tensor& rest, bool with_rest)
      : x(data(normed.x)),
        width(normed.width),
        bias(torch::stable::contiguous(bias)),
        rest(torch::stable::contiguous(rest)),
        feature(torch::stable::new_empty(normed.x, normed.x.sizes())),
        stream(torch::stable::new_empty(normed.x, normed.x.sizes())),
        stride(rest.numel() == width ? 0 : width),
        with_rest(with_rest),
        biases(data(this->bias)),
        rests(data(this->rest)),
        features(static_cast<float*>(feature.data_ptr())),
        streams(static_cast<float*>(stream.data_ptr())) {
    check_size(bias, width, "the last bias must be as wide as x");
    check_size(rest, stride == 0 ? width : normed.rows * width, "the rest must be as x, or one row of it");
  }

  // Writes some columns of a row.
  void write(int64_t m, int64_t start, int64_t columns, const float* values) const {
    const int64_t place = m * width + start;
    each(columns, [&](auto i, auto count) {
      const Vector value = load(values + i, count) + load(biases + start + i, count);
      const Vector sum = value + load(rests + m * stride + start + i, count);
      store(features + place + i, with_rest ? sum : value, count);
      store(streams + place + i, load(x + place + i, count) + sum, count);
    });
  }

  std::tuple<Tensor, Tensor> both() const { return {feature, stream}; }
};

}  // namespace
