// What the kernel must give, by the plainest loops there are, in double precision. The driver compares with it.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "../kernel/attention.hpp"

namespace regard::naive {

inline int64_t size_of(Type type) { return type == Type::float32 ? 4 : 2; }

// Number i of an array of a type.
inline double number(const void* data, Type type, int64_t i) {
  if (type == Type::float32) return static_cast<const float*>(data)[i];
  const uint16_t bits = static_cast<const uint16_t*>(data)[i];
  if (type == Type::bfloat16) {
    const uint32_t wide = uint32_t(bits) << 16;
    float x;
    std::memcpy(&x, &wide, sizeof x);
    return x;
  }
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  double x = exponent > 0 ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24);
  if (exponent == 31) x = mantissa ? std::nan("") : INFINITY;
  return bits >> 15 ? -x : x;
}

// Makes it x, which the type must be able to hold: zero, not finite, or a normal number of few digits.
inline void set_number(void* data, Type type, int64_t i, float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (type == Type::float32) static_cast<float*>(data)[i] = x;
  if (type == Type::bfloat16) static_cast<uint16_t*>(data)[i] = uint16_t(bits >> 16);
  if (type == Type::float16) {
    uint32_t half = x == 0 ? 0 : ((bits & 0x7fffffff) - (112u << 23)) >> 13;
    if (!std::isfinite(x)) half = std::isnan(x) ? 0x7e00 : 0x7c00;
    static_cast<uint16_t*>(data)[i] = uint16_t(bits >> 16 & 0x8000) | uint16_t(half);
  }
}

template <class T>
int64_t place(const Strided<T>& x, int64_t batch, int64_t head, int64_t row) {
  return batch * x.batch + head * x.head + row * x.row;
}
template <class T>
int64_t place(const Broadcast<T>& x, int64_t batch, int64_t head, int64_t row, int64_t column) {
  return batch * x.batch + head * x.head + row * x.row + column * x.column;
}

// The whole matrix (B,H,Q,K), the normaliser and the largest score (B,H,Q) and, of each score, what softcap leaves of a
// change to it.
struct Dense {
  std::vector<double> weights, slopes, lse, largest;

  explicit Dense(const Scores& s) {
    std::vector<double> scores(s.keys);
    for (int64_t b = 0; b < s.batch; b++) {
      for (int64_t h = 0; h < s.heads; h++) {
        for (int64_t i = 0; i < s.queries; i++) {
          double seen = -INFINITY, total = 0;
          for (int64_t j = 0; j < s.keys; j++) {
            scores[j] = score(s, b, h, i, j);
            if (!(scores[j] <= seen) && !std::isnan(seen)) seen = scores[j];  // nan stays nan
          }
          largest.push_back(seen);
          const double largest = s.sinks && !(s.sinks[h] <= seen) ? s.sinks[h] : seen;
          for (double score : scores) total += score == -INFINITY ? 0 : std::exp(score - largest);
          if (s.sinks) total += std::exp(s.sinks[h] - largest);
          lse.push_back(total == 0 ? -INFINITY : largest + std::log(total));
          for (double score : scores) weights.push_back(score == -INFINITY ? 0 : std::exp(score - lse.back()));
        }
      }
    }
  }

 private:
  double score(const Scores& s, int64_t b, int64_t h, int64_t i, int64_t j) {
    const int64_t span = b * s.span_batch + i, group = h / (s.heads / s.groups);
    double product = 0;
    for (int64_t d = 0; d < s.dim; d++) {
      product += number(s.query.data, s.type, place(s.query, b, h, i) + d) *
                 number(s.key.data, s.type, place(s.key, b, group, j) + d);
    }
    double x = product * s.scale;
    if (s.softcap != 0) x = s.softcap * std::tanh(x / s.softcap);
    slopes.push_back(s.softcap != 0 ? 1 - (x / s.softcap) * (x / s.softcap) : 1);
    if (s.bias.data) x += number(s.bias.data, s.bias_type, place(s.bias, b, h, i, j));
    const bool visible = (!s.start || (s.start[span] <= j && j < s.stop[span])) &&
                         (!s.mask.data || s.mask.data[place(s.mask, b, h, i, j)]);
    return visible ? x : -INFINITY;
  }
};

// A map: the matrix (B,H,Q,K), H = 1 with a Gram matrix, and how far off float32 may be in each of its numbers.
struct DenseMap {
  int64_t heads;
  std::vector<double> numbers, errors;

  DenseMap(const Scores& s, const Map& m, const Dense& dense, double exact) : heads(m.gram.data ? 1 : s.heads) {
    for (int64_t row = 0; row < s.batch * heads * s.queries; row++) {
      const int64_t b = row / (heads * s.queries), h = row / s.queries % heads, i = row % s.queries;
      for (int64_t j = 0; j < s.keys; j++) {
        double number = m.gram.data ? 0 : dense.weights[row * s.keys + j], error = exact * std::abs(number);
        if (m.gram.data) combine(s, m, dense, b, i, j, exact, number, error);
        double product = 1, size = 1;
        for (int64_t k = 0; k < m.count; k++) multiply(m.factors[k], b, h, i, j, product, size);
        const bool hidden = number == 0;
        numbers.push_back(hidden ? 0 : number * product);
        errors.push_back(hidden ? error * size : (error + exact * number) * size);
      }
    }
  }

 private:
  // The rounding of a square is much of its root where the root is small.
  static void combine(const Scores& s, const Map& m, const Dense& dense, int64_t b, int64_t i, int64_t j, double exact,
                      double& number, double& error) {
    double square = 0, size = 0;
    bool seen = false;  // by any head
    const float* gram = m.gram.data + b * m.gram.batch + j * m.gram.row;
    for (int64_t h = 0; h < s.heads; h++) {
      for (int64_t other = 0; other < s.heads; other++) {
        const double weight = dense.weights[((b * s.heads + h) * s.queries + i) * s.keys + j];
        const double pair = weight * dense.weights[((b * s.heads + other) * s.queries + i) * s.keys + j];
        seen = seen || weight != 0;
        square += pair * gram[h * s.heads + other], size += pair * std::abs(double(gram[h * s.heads + other]));
      }
    }
    if (!seen) return;
    number = std::isnan(square) ? square : std::sqrt(std::max(0.0, square));
    error = exact * size / std::max(number, std::sqrt(exact * size) + 1e-300);
  }

  static void multiply(const Factor& f, int64_t b, int64_t h, int64_t i, int64_t j, double& product, double& size) {
    double sum = 0, of_sizes = 0;
    for (int64_t e = 0; e < f.width; e++) {
      double term = 1;
      if (f.query.data) term *= f.query.data[place(f.query, b, h, i) + e];
      if (f.key.data) term *= f.key.data[place(f.key, b, h / f.key_repeat, j) + e];
      sum += term, of_sizes += std::abs(term);
    }
    if (f.rectifier == Rectifier::relu && sum < 0) sum = 0;
    if (f.rectifier == Rectifier::absolute) sum = std::abs(sum);
    product *= sum, size *= of_sizes;
  }
};

}  // namespace regard::naive
