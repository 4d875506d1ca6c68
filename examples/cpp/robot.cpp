// A robot without Python: loads the compiled.pt2 that `bac export` wrote, predicts an action chunk, and acts at a fixed
// rate while a second thread predicts the next one.
//
//   robot compiled.pt2 observation.txt [seed] [control_hz] [num_steps]
//
// observation.txt holds the numbers of all observations in the order of card.json, in the data set's units. The chunk
// is printed one action a line. The package says names, shapes and scales of its inputs itself, as metadata.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <chrono>
#include <fstream>
#include <future>
#include <iomanip>
#include <iostream>
#include <sstream>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

using Clock = std::chrono::steady_clock;
using Package = torch::inductor::AOTIModelPackageLoader;

template <typename T>
std::vector<T> all_of(std::istream& stream) {
  std::vector<T> values;
  for (T value; stream >> value;) values.push_back(value);
  return values;
}

class Policy {
 public:
  explicit Policy(const std::string& path) : package_(path), metadata_(package_.get_metadata()) {}

  // Observations in, one tensor for each input that is not noise; the action chunk out, [B, T, Da], in the data set's
  // units. Noise is drawn as Python draws it, so at::manual_seed gives the same chunk there and here.
  at::Tensor predict(const std::vector<at::Tensor>& observation) {
    std::vector<at::Tensor> inputs;
    for (size_t i = 0; i < names("bac.inputs").size(); ++i)
      inputs.push_back(scaled(observation.at(i), names("bac.inputs")[i]));
    for (const auto& name : names("bac.noise")) {
      auto shape = numbers<int64_t>("bac.shape." + name);
      const auto count = shape.front();
      shape.erase(shape.begin());
      std::vector<at::Tensor> draws;  // draw by draw: one large draw would be of other numbers
      for (int64_t i = 0; i < count; ++i) draws.push_back(at::randn(shape));
      inputs.push_back(at::stack(draws));
    }
    return scaled(package_.run(inputs).front(), "action");
  }

  // The observation in a text file.
  std::vector<at::Tensor> read(const std::string& path) {
    std::ifstream file(path);
    const auto values = all_of<float>(file);
    std::vector<at::Tensor> tensors;
    int64_t begin = 0;
    for (const auto& name : names("bac.inputs")) {
      const auto empty = at::empty(numbers<int64_t>("bac.shape." + name));
      TORCH_CHECK(begin + empty.numel() <= (int64_t)values.size(), path, ": too short for ", name, empty.sizes());
      auto* first = const_cast<float*>(values.data()) + begin;
      tensors.push_back(at::from_blob(first, empty.sizes(), at::kFloat).clone());
      begin += empty.numel();
    }
    return tensors;
  }

 private:
  std::vector<std::string> names(const std::string& key) {
    std::istringstream text(metadata_.at(key));
    return all_of<std::string>(text);
  }

  template <typename T>
  std::vector<T> numbers(const std::string& key) {
    std::istringstream text(metadata_.at(key));
    return all_of<T>(text);
  }

  at::Tensor scaled(const at::Tensor& values, const std::string& name) {
    if (!metadata_.count("bac.scale." + name)) return values;
    const auto shape = numbers<int64_t>("bac.scale_shape." + name);
    const auto row = [&](const std::string& key) { return at::tensor(numbers<float>(key + name)).reshape(shape); };
    return (values * row("bac.scale.") + row("bac.shift.")).contiguous();
  }

  Package package_;
  std::unordered_map<std::string, std::string> metadata_;
};

// Acts on one chunk while the next one is computed. A chunk that is late costs control steps: the robot holds its last
// action, and the step is counted. A real robot observes before each prediction and sends `action` to its joints.
int64_t control(Policy& policy, const std::vector<at::Tensor>& observation, double control_hz, int64_t num_steps) {
  const auto period = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(1.0 / control_hz));
  auto think = [&] {
    c10::InferenceMode no_gradients;
    return policy.predict(observation);
  };
  at::Tensor chunk = think(), action;  // the robot stands still until it has a chunk
  auto next = std::async(std::launch::async, think);
  int64_t row = 0, missed = 0;
  auto deadline = Clock::now();
  for (int64_t step = 0; step < num_steps; ++step) {
    if (row == chunk.size(1)) {
      if (next.wait_until(deadline) == std::future_status::ready) {
        chunk = next.get(), row = 0;
        next = std::async(std::launch::async, think);
      } else {
        ++missed;
      }
    }
    if (row < chunk.size(1)) action = chunk.select(1, row++);
    deadline += period;  // from the start, so that one late step shifts no later one
    std::this_thread::sleep_until(deadline);
  }
  next.wait();
  return missed;
}

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: robot compiled.pt2 observation.txt [seed] [control_hz] [num_steps]\n";
    return 2;
  }
  c10::InferenceMode no_gradients;
  at::set_num_threads(1);
  at::manual_seed(argc > 3 ? std::stoull(argv[3]) : 0);
  try {
    Policy policy(argv[1]);
    const auto observation = policy.read(argv[2]);
    const auto chunk = policy.predict(observation).select(0, 0).contiguous();
    std::cout << std::setprecision(9);
    for (int64_t row = 0; row < chunk.size(0); ++row)
      for (int64_t i = 0; i < chunk.size(1); ++i)
        std::cout << chunk[row][i].item<float>() << (i + 1 < chunk.size(1) ? ' ' : '\n');
    if (argc > 4) {
      const auto num_steps = argc > 5 ? std::stoll(argv[5]) : 100;
      std::cout << "missed " << control(policy, observation, std::stod(argv[4]), num_steps) << " of " << num_steps << '\n';
    }
  } catch (const std::exception& error) {
    std::cerr << "robot: " << error.what() << '\n';
    return 1;
  }
}
