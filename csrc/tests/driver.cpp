// Tests of the kernel without Python, to be run under sanitizers and emulators: every function of every kernel that
// this machine has, on random and awkward shapes and options, in buffers that end where their numbers end.
//
//     driver [FIRST LAST [emulated]]
//
// runs the cases from number FIRST to before LAST, each of which is the same whenever it is run, and all that is not of
// random shape; "emulated" leaves out the fork, which emulators do not follow.

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>

#include "../kernel/attention.hpp"
#include "../kernel/parallel.hpp"
#include "cases.hpp"
#include "maps.hpp"

namespace {

void check_largest(const Case& c, const Forward& f) {
  // Scores of numbers with few digits are exact as long as nothing is added to them: then so is the order.
  const bool ordered = c.s.scale > 0 && c.s.softcap == 0 && !c.any_bias();
  std::vector<int64_t> keys(c.s.keys);
  for (int64_t row = 0; row < c.rows(); row++) {
    if (std::isnan(c.dense->lse[row])) continue;
    const double* weights = c.dense->weights.data() + row * c.s.keys;
    std::iota(keys.begin(), keys.end(), 0);
    std::stable_sort(keys.begin(), keys.end(), [&](int64_t a, int64_t b) { return weights[a] > weights[b]; });
    for (int64_t k = 0; k < f.top; k++) {
      const int64_t at = row * f.top + k, key = f.top_keys[at];
      if (key < 0 || key >= c.s.keys) fail("top_keys beyond the keys");
      if (ordered && key != keys[k]) fail("top_keys out of order");
      expect("top_values", at, f.top_values[at], weights[keys[k]], exact);
      expect("top_values' weights", at, f.top_values[at], weights[key], exact);
    }
  }
}

void check_forward(const Kernel& kernel, Case& c) {
  const Scores& s = c.s;
  Forward f;
  f.value_dim = c.value_dim, f.value = c.value, f.value_heads = s.groups;
  f.output_type = c.random.one_of({s.type, Type::float32});
  f.top = c.random.chance(0.5) ? std::min(s.keys, c.random.one_of<int64_t>({1, 2, 8, 9, 63, largest_top})) : 0;
  Array output = make_strided(c.random, f.output, f.output_type, s.batch, s.heads, s.queries, f.value_dim, true);
  Array lse(c.random, c.rows(), sizeof(double)), top_values(c.random, c.rows() * f.top, sizeof(float));
  Array top_keys(c.random, c.rows() * f.top, sizeof(int64_t));
  Array entropy(c.random, c.rows(), sizeof(float)), distance(c.random, c.rows(), sizeof(float));
  Array max_score(c.random, c.rows(), sizeof(float));
  if (c.random.chance(0.2)) f.output.data = nullptr, f.value_dim = 0;
  f.lse = lse.as<double>();
  if (c.random.chance(0.5)) f.entropy = entropy.as<float>();
  if (c.random.chance(0.3)) f.distance = distance.as<float>(), f.first_position = c.random.below(9);
  if (c.random.chance(0.5)) f.max_score = max_score.as<float>();
  f.top_values = top_values.as<float>(), f.top_keys = top_keys.as<int64_t>();
  if (c.random.chance(0.3)) f.entropy = f.distance = f.max_score = nullptr, f.top = 0;  // as in a plain call
  Results{{&output, &lse, &entropy, &distance, &max_score, &top_values, &top_keys}}.compute(
      [&](int threads) { kernel.forward(s, f, threads); });

  for (int64_t row = 0; row < c.rows(); row++) {
    const int64_t b = row / (s.heads * s.queries), h = row / s.queries % s.heads, i = row % s.queries;
    const double* weights = c.dense->weights.data() + row * s.keys;
    expect("lse", row, f.lse[row], c.dense->lse[row], exact);
    double entropies = 0, distances = 0;
    for (int64_t j = 0; j < s.keys; j++) {
      if (weights[j] != 0) entropies -= weights[j] * std::log(weights[j]);
      distances += weights[j] * double(std::abs(f.first_position + i - j));
    }
    if (f.entropy) expect("entropy", row, f.entropy[row], entropies, exact);
    if (f.max_score) expect("max_score", row, f.max_score[row], c.dense->largest[row], exact);
    if (f.distance) expect("distance", row, f.distance[row], distances, exact);
    for (int64_t e = 0; e < f.value_dim; e++) {
      double expected = 0;
      for (int64_t j = 0; j < s.keys; j++) {
        if (weights[j] == 0) continue;
        const int64_t value = naive::place(f.value, b, h / (s.heads / s.groups), j) + e;
        expected += weights[j] * number(f.value.data, s.type, value);
      }
      const double computed = number(f.output.data, f.output_type, naive::place(f.output, b, h, i) + e);
      expect("output", row * f.value_dim + e, computed, expected, rounding(s.type));
    }
  }
  check_largest(c, f);
}

void check_backward(const Kernel& kernel, Case& c) {
  const Scores& s = c.s;
  const int64_t values = c.value_dim, repeat = s.heads / s.groups;
  Backward b;
  b.lse = c.lse.as<double>(), b.value_dim = values, b.value = c.value;
  const Array output = make_strided(c.random, b.output, s.type, s.batch, s.heads, s.queries, values);
  const Array grad_output = make_strided(c.random, b.grad_output, s.type, s.batch, s.heads, s.queries, values);
  Array grad_lse(c.random, c.rows(), sizeof(double)), delta(c.random, c.rows(), sizeof(float));
  for (int64_t row = 0; row < c.rows(); row++) grad_lse.as<double>()[row] = c.random.number();
  if (c.random.chance(0.5)) b.grad_lse = grad_lse.as<double>();
  b.delta = delta.as<float>();
  b.grad_type = c.random.one_of({s.type, Type::float32});
  const bool bias = c.any_bias() && c.random.chance(0.7);
  const int64_t biases = bias ? c.bias_memory.bytes / naive::size_of(s.bias_type) : 0;
  const auto result = [&](Strided<void>& of, int64_t heads, int64_t rows, int64_t n) {
    return make_strided(c.random, of, b.grad_type, s.batch, heads, rows, n, true);
  };
  Array computed[] = {result(b.grad_query, s.heads, s.queries, s.dim), result(b.grad_key, s.groups, s.keys, s.dim),
                      result(b.grad_value, s.groups, s.keys, values), Array(c.random, biases, sizeof(float))};
  std::fill_n(computed[3].data, computed[3].bytes, 0);
  if (bias) b.grad_bias = {computed[3].as<float>(), s.bias.batch, s.bias.head, s.bias.row, s.bias.column};
  Results{{&computed[0], &computed[1], &computed[2], &computed[3], &delta}}.compute(
      [&](int threads) { kernel.backward(s, b, threads); });

  if (!c.finite) return;
  // Each sum with the sum of its terms' sizes, which its error is measured against.
  const int64_t keys = s.batch * s.groups * s.keys, counts[] = {c.rows() * s.dim, keys * s.dim, keys * values, biases};
  std::vector<double> expected[4], sizes[4];
  for (int n = 0; n < 4; n++) expected[n].resize(counts[n]), sizes[n].resize(counts[n]);
  const auto add = [&](int which, int64_t at, double term) {
    expected[which][at] += term, sizes[which][at] += std::abs(term);
  };
  for (int64_t row = 0; row < c.rows(); row++) {
    const int64_t n = row / (s.heads * s.queries), h = row / s.queries % s.heads, i = row % s.queries;
    const int64_t group = h / repeat;
    double delta_of_row = b.grad_lse ? -b.grad_lse[row] : 0, delta_size = std::abs(delta_of_row);
    for (int64_t e = 0; e < values; e++) {
      const double term = number(b.grad_output.data, s.type, naive::place(b.grad_output, n, h, i) + e) *
                          number(b.output.data, s.type, naive::place(b.output, n, h, i) + e);
      delta_of_row += term, delta_size += std::abs(term);
    }
    expect("delta", row, b.delta[row], delta_of_row, exact * (1 + delta_size));
    for (int64_t j = 0; j < s.keys; j++) {
      const double weight = c.dense->weights[row * s.keys + j];
      if (weight == 0) continue;
      const int64_t key = (n * s.groups + group) * s.keys + j;
      double product = 0, size = 0;
      for (int64_t e = 0; e < values; e++) {
        const double grad = number(b.grad_output.data, s.type, naive::place(b.grad_output, n, h, i) + e);
        const double term = grad * number(b.value.data, s.type, naive::place(b.value, n, group, j) + e);
        product += term, size += std::abs(term);
        add(2, key * values + e, weight * grad);
      }
      const double grad = weight * (product - delta_of_row);
      const double scaled = grad * c.dense->slopes[row * s.keys + j] * s.scale;
      if (bias) {
        const int64_t at = naive::place(b.grad_bias, n, h, i, j);
        add(3, at, grad), sizes[3][at] += size;
      }
      for (int64_t d = 0; d < s.dim; d++) {
        const double query = number(s.query.data, s.type, naive::place(s.query, n, h, i) + d);
        add(0, row * s.dim + d, scaled * number(s.key.data, s.type, naive::place(s.key, n, group, j) + d));
        add(1, key * s.dim + d, scaled * query);
      }
    }
  }
  const auto check = [&](int which, const char* name, const Strided<void>& of, int64_t heads, int64_t rows, int64_t n) {
    for (int64_t i = 0; i < s.batch * heads * rows * n; i++) {
      const int64_t row = i / n, at = naive::place(of, row / (heads * rows), row / rows % heads, row % rows) + i % n;
      expect(name, i, number(of.data, b.grad_type, at), expected[which][i],
             exact * (1 + sizes[which][i]) + (b.grad_type == Type::float32 ? 0 : rounding(b.grad_type)));
    }
  };
  check(0, "grad_query", b.grad_query, s.heads, s.queries, s.dim);
  check(1, "grad_key", b.grad_key, s.groups, s.keys, s.dim);
  check(2, "grad_value", b.grad_value, s.groups, s.keys, values);
  for (int64_t i = 0; i < biases; i++)
    expect("grad_bias", i, computed[3].as<float>()[i], expected[3][i], exact * (1 + sizes[3][i]));
}

// The average of a number with itself is that number, whatever it is; with its neighbour it lies between the two, and
// is rounded to the even one. Only what is less than the least normal float may become 0: the processor's product of
// bfloat16 does so.
void check_every_half(const Kernel& kernel) {
  constexpr int64_t count = 1 << 16;
  constexpr double largest = std::numeric_limits<float>::max(), smallest = std::numeric_limits<float>::min();
  for (const Type type : {Type::bfloat16, Type::float16}) {
    subject = std::string(kernel.name) + ", every number of type " + std::to_string(int(type));
    std::vector<uint16_t> zero(1), halves(count + 1), same(count), between(count);
    std::vector<float> wide(count);
    std::iota(halves.begin(), halves.end(), uint16_t(0));
    Scores s;
    s.type = type, s.batch = 1, s.heads = s.groups = 256, s.queries = s.dim = 1, s.keys = 2;
    s.query = s.key = {zero.data(), 0, 0, 0};
    Forward f;
    f.value_dim = 256, f.value_heads = 256;
    const auto average = [&](void* output, Type output_type, int64_t stride) {
      f.value = {halves.data(), 0, 256, stride}, f.output = {output, 0, 256, 0}, f.output_type = output_type;
      kernel.forward(s, f, 1);
    };
    average(same.data(), type, 0);
    average(wide.data(), Type::float32, 0);
    average(between.data(), type, 1);
    for (int64_t i = 0; i < count; i++) {
      const double current = number(halves.data(), type, i), next = number(halves.data(), type, i + 1);
      if (std::abs(2 * current) > largest && std::isfinite(current)) continue;  // the sum is beyond a float
      expect("same", i, number(same.data(), type, i), current, smallest);
      expect("wide", i, wide[i], current, smallest);
      if (std::isfinite(current + next))
        expect("between", i, number(between.data(), type, i), i % 2 ? next : current, smallest);
    }
  }
}

// A layer of random sizes and strides, with or without what may follow it; the same bits by one row and by three
// threads.
// W of check_linear in whole numbers, as a kernel reads it.
struct WholeNumbers {
  Array packed, scales, totals;
  Quantized w;

  WholeNumbers(const Kernel& kernel, Random& random, const Linear& l, const float* weight)
      : packed(random, kernel.quantized_size(l.outputs, l.inputs), 1),
        scales(random, l.outputs, 4),
        totals(random, l.outputs, 4) {
    std::vector<int8_t> numbers(l.outputs * l.inputs);
    for (size_t i = 0; i < numbers.size(); i++) numbers[i] = int8_t(weight[i] * 64);
    kernel.pack_quantized(l.outputs, l.inputs, numbers.data(), packed.data);
    for (int64_t n = 0; n < l.outputs; n++) {
      const auto row = numbers.begin() + n * l.inputs;
      scales.as<float>()[n] = 1.0f / 64, totals.as<float>()[n] = float(std::accumulate(row, row + l.inputs, 0));
    }
    w = {packed.data, scales.as<float>(), totals.as<float>()};
  }
};

void check_linear(const Kernel& kernel, int64_t seed) {
  Random random{std::mt19937_64(uint64_t(seed))};
  Linear l;
  l.type = random.one_of({Type::float32, Type::bfloat16, Type::float16});
  const int64_t size = naive::size_of(l.type);
  const auto up_to = [&](int64_t limit) { return 1 + random.below(random.chance(0.1) ? 10 * limit : limit); };
  l.rows = up_to(30) - 1, l.inputs = up_to(40), l.outputs = up_to(100);
  l.activation = Activation(random.below(4));
  subject = std::string(kernel.name) + ", layer " + std::to_string(seed) + " (type " + std::to_string(int(l.type)) +
            ", " + std::to_string(l.rows) + " × " + std::to_string(l.inputs) + " → " + std::to_string(l.outputs) +
            ", activation " + std::to_string(int(l.activation)) + ")";
  const auto numbers = [&](int64_t count, Type type) {
    Array array(random, count, naive::size_of(type));
    for (int64_t i = 0; i < count; i++) naive::set_number(array.data, type, i, random.number());
    return array;
  };
  l.x.row = l.inputs + random.below(3), l.residual.row = l.outputs + random.below(3);
  l.output.row = l.outputs + random.below(3);
  const auto room = [&](int64_t row, int64_t width) { return l.rows ? (l.rows - 1) * row + width : 0; };
  Array x = numbers(room(l.x.row, l.inputs), l.type), weight = numbers(l.outputs * l.inputs, l.type);
  Array bias = numbers(l.outputs, Type::float32), gain = numbers(l.outputs, Type::float32);
  Array shift = numbers(l.outputs, Type::float32), sums(random, l.rows * l.outputs, 4);
  Array residual = numbers(room(l.residual.row, l.outputs), l.type);
  Array packed(random, kernel.linear_size(l.type, l.outputs, l.inputs), 4);
  kernel.pack_linear(l.type, l.outputs, l.inputs, weight.data, packed.as<float>());
  std::unique_ptr<WholeNumbers> whole;
  if (l.type == Type::float32 && random.chance(0.5)) {
    whole = std::make_unique<WholeNumbers>(kernel, random, l, weight.as<float>());
    // The largest and the smallest number of a row 255 steps of 1/64 apart, so that rounding changes none.
    for (int64_t r = 0; r < l.rows && l.inputs > 1; r++)
      x.as<float>()[r * l.x.row] = 2, x.as<float>()[r * l.x.row + 1] = -127.0f / 64;
  }
  const auto compute = [&](const Linear& layer, int threads) {
    whole ? kernel.quantized(layer, whole->w, threads) : kernel.linear(layer, threads);
  };
  l.x.data = x.data, l.weight = packed.as<float>(), l.bias = bias.as<float>();
  if (random.chance(0.5)) l.residual.data = residual.data;
  if (random.chance(0.5)) {
    l.gain = gain.as<float>(), l.shift = shift.as<float>(), l.epsilon = 0.01f;
    if (l.type != Type::float32) l.sums = sums.as<float>();
  }
  Array output(random, room(l.output.row, l.outputs), size), again(random, room(l.output.row, l.outputs), size);
  l.output.data = output.data;
  compute(l, 3);
  l.output.data = again.data;
  Linear single = l;
  single.rows = 1;
  for (int64_t r = 0; r < l.rows; r++) {
    single.x.data = x.data + r * l.x.row * size, single.output.data = again.data + r * l.output.row * size;
    if (l.residual.data) single.residual.data = residual.data + r * l.residual.row * size;
    compute(single, 1);
  }
  const double digits = l.type == Type::float32 ? 4e-6 : l.type == Type::bfloat16 ? 1.0 / 128 : 1.0 / 1024;
  std::vector<double> y(l.outputs);
  for (int64_t r = 0; r < l.rows; r++) {
    double mean = 0, variance = 0, largest = 1;
    for (int64_t n = 0; n < l.outputs; n++) {
      double sum = bias.as<float>()[n];
      for (int64_t k = 0; k < l.inputs; k++)
        sum += number(x.data, l.type, r * l.x.row + k) * number(weight.data, l.type, n * l.inputs + k);
      largest = std::max(largest, std::abs(sum));
      if (l.activation == Activation::gelu) sum = sum / 2 * (1 + std::erf(sum / std::sqrt(2.0)));
      if (l.activation == Activation::gelu_tanh)
        sum = sum / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (sum + 0.044715 * sum * sum * sum)));
      if (l.activation == Activation::relu) sum = std::max(sum, 0.0);
      y[n] = sum + (l.residual.data ? number(residual.data, l.type, r * l.residual.row + n) : 0);
      mean += y[n] / double(l.outputs);
    }
    for (const double number : y) variance += (number - mean) * (number - mean) / double(l.outputs);
    const double deviation = l.gain ? std::sqrt(variance + l.epsilon) : 1;
    for (int64_t n = 0; n < l.outputs; n++) {
      const double normal = (y[n] - mean) / deviation * gain.as<float>()[n] + shift.as<float>()[n];
      const double expected = l.gain ? normal : y[n], computed = number(output.data, l.type, r * l.output.row + n);
      const double error = 4e-6 * (largest + std::abs(y[n])) / deviation + digits * std::abs(expected) + digits / 64;
      expect("y", r * l.outputs + n, computed, expected, error);
      if (std::memcmp(output.data + (r * l.output.row + n) * size, again.data + (r * l.output.row + n) * size,
                      size_t(size)) != 0)
        fail("another row beside it, or another thread, changed row " + std::to_string(r));
    }
  }
}

void check_ceilings(const Kernel& kernel) {
  subject = std::string(kernel.name) + ", ceilings";
  if (!(kernel.flops(Type::float32, 2) > 0 && kernel.flops(Type::bfloat16, 2) > 0)) fail("flops: none");
  if (!(kernel.bytes(2) > 0)) fail("bytes: none");
}

void check_all(const Kernel& kernel, int64_t seed) {
  Case c(seed);
  const auto call = [&](const char* function, auto check) {
    subject = std::string(kernel.name) + ", case " + std::to_string(seed) + " (" + c.text() + "), " + function;
    check(kernel, c);
  };
  call("forward", check_forward);
  call("pool", check_pool);
  call("tile", check_tile);
  call("diagonal", check_diagonal);
  call("apply", check_apply);
  call("transposed", check_transposed);
  call("largest", check_largest_of_rows);
  call("backward", check_backward);
}

void check_threads(bool emulated) {
  subject = "for_each";
  bool caught = false;
  try {
    for_each(1000, 4, [](int64_t item) {
      if (item == 500) throw std::runtime_error("500");
    });
  } catch (const std::runtime_error&) {
    caught = true;
  }
  if (!caught) fail("an exception was lost");

  subject = "several threads at once";
  const auto some_cases = [](int64_t first) {
    for (int64_t seed = first; seed < first + 20; seed++) {
      Case c(seed);
      check_forward(*kernel(nullptr), c);
    }
  };
  std::vector<std::thread> threads;
  for (int n = 0; n < 4; n++) threads.emplace_back(some_cases, 20 * n);
  for (std::thread& thread : threads) thread.join();
  if (emulated) return;

  subject = "the child of a fork";
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);  // ends a child that hangs
    some_cases(0);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (status != 0) fail("it hangs, or is wrong");
}

}  // namespace

int main(int count, char** arguments) {
  const int64_t first = count > 2 ? std::atoll(arguments[1]) : 0, last = count > 2 ? std::atoll(arguments[2]) : 2000;
  for (const Kernel* const* kernel = kernels(); *kernel; kernel++) {
    for (int64_t seed = first; seed < last; seed++) check_all(**kernel, seed), check_linear(**kernel, seed);
    check_every_half(**kernel);
    check_ceilings(**kernel);
    std::printf("%s: %ld cases agree\n", (*kernel)->name, long(last - first));
  }
  check_threads(count > 3 && std::strcmp(arguments[3], "emulated") == 0);
  std::puts("exceptions and threads: as they should be");
}
