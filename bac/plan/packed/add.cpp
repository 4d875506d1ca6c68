// A sum of four: the features that a cached run reuses are added up, and each addition is a kernel.

#include "rows.h"

namespace {

Tensor add_four(Tensor a, Tensor b, Tensor c, Tensor d) {
  for (const Tensor& part : {b, c, d})
    STD_TORCH_CHECK(part.numel() == a.numel() || part.numel() == 1, "what is added must be as a, or one number");
  Tensor result = torch::stable::new_empty(a, a.sizes());
  for (Tensor* part : {&a, &b, &c, &d}) *part = torch::stable::contiguous(*part);
  auto* to = static_cast<float*>(result.data_ptr());
  const int64_t size = a.numel();
  struct Part {
    const float* from;
    bool is_one;
    Vector at(int64_t i, size_t count) const { return is_one ? spread(*from) : load(from + i, count); }
  };
  const Part w{data(a), a.numel() != size}, x{data(b), b.numel() != size}, y{data(c), c.numel() != size},
      z{data(d), d.numel() != size};
  torch::stable::parallel_for(0, size, kGrain, [&](int64_t start, int64_t end) {
    each(end - start, [&](auto i, auto count) {
      const auto at = start + i;
      store(to + at, (w.at(at, count) + x.at(at, count)) + (y.at(at, count) + z.at(at, count)), count);
    });
  });
  return result;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(bac, library) {
  library.def("add_four(Tensor a, Tensor b, Tensor c, Tensor d) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(bac, CPU, library) { library.impl("add_four", TORCH_BOX(&add_four)); }
