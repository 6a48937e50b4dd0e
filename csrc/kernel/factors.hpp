// The factors φ(a_i·b_j) of a map, for one head and a block of keys at a time.

#pragma once

#include <cstdint>

#include "attention.hpp"
#include "pack.hpp"
#include "rows.hpp"
#include "simd.hpp"
#include "tile.hpp"

namespace regard::REGARD_ISA {
namespace {

inline Float rectified(Rectifier rectifier, Float x) {
  if (rectifier == Rectifier::relu) return larger(broadcast(0.0f), x);  // nan stays nan
  return rectifier == Rectifier::absolute ? absolute(x) : x;
}

struct Factors {
  const Map& m;

  // What `load` writes: of each factor with a key, its panels; and the scratch to pack them.
  int64_t size() const {
    int64_t panels = 0, widest = 0;
    for (int64_t k = 0; k < m.count; k++) {
      if (!m.factors[k].key.data) continue;
      panels += block_keys * m.factors[k].width;
      widest = maximum(widest, m.factors[k].width);
    }
    return round_up(panels + Float::width * round_up(widest, Float::width), 16);
  }

  void load(const HeadGroup& group, int64_t first, int64_t known, float* memory) const {
    int64_t panels = 0;
    for (int64_t k = 0; k < m.count; k++) panels += m.factors[k].key.data ? block_keys * m.factors[k].width : 0;
    float* to = memory;
    for (int64_t k = 0; k < m.count; k++) {
      const Factor& f = m.factors[k];
      if (!f.key.data) continue;
      const float* from =
          f.key.data + group.batch * f.key.batch + group.first_head / f.key_repeat * f.key.head + first * f.key.row;
      pack_panels<Single>(from, Type::float32, f.key.row, known, f.width, to, memory + panels);
      to += block_keys * f.width;
    }
  }

  // Multiplies the numbers of a tile by all factors. A number that is 0, because the key is hidden, stays 0 whatever
  // the factors are; what is not finite reaches its own row or key alone.
  template <int n>
  __attribute__((noinline)) void multiply(const HeadGroup& group, const Scored& tile, const float* panels) const {
    alignas(64) float product[n * block_keys];
    const Float zero = broadcast(0.0f);
    for (int64_t k = 0; k < m.count; k++) {
      const Factor& f = m.factors[k];
      const auto put = [&](int i, int64_t j, Float x) {
        float *number = tile.scores + i * block_keys + j, *sofar = product + i * block_keys + j;
        if (k > 0) x = x * load_from(sofar);
        if (k + 1 < m.count) return store(sofar, x);
        const Float weight = load_from(number);
        store(number, where_at_most(weight, zero, zero, weight * x));
      };
      const float* query = nullptr;
      if (f.query.data)
        query = f.query.data + group.batch * f.query.batch + group.first_head * f.query.head +
                tile.rows[0].query * f.query.row;
      if (!f.key.data) {
        for (int i = 0; i < n; i++) {
          const Float x = rectified(f.rectifier, broadcast(query[i * f.query.row]));
          for (int64_t j = tile.keys.from; j < tile.keys.to; j += Float::width) put(i, j, x);
        }
        continue;
      }
      if (query) {
        products<n>(f, query, panels, tile.keys, put);
      } else {
        for (int64_t j = tile.keys.from; j < tile.keys.to; j += Float::width) {
          const Float x = rectified(f.rectifier, load_from(panels + j));
          for (int i = 0; i < n; i++) put(i, j, x);
        }
      }
      panels += block_keys * f.width;
    }
  }

 private:
  static Float load_from(const float* from) { return REGARD_ISA::load(from); }

  // φ(a_i·b_j) for n rows.
  template <int n, class Put>
  static void products(const Factor& f, const float* query, const float* panels, Range keys, Put&& put) {
    visit_panels(keys.from, keys.to, [&]<int vectors>(int64_t key) {
      Float sums[n][vectors];
      for (int i = 0; i < n; i++)
        for (int v = 0; v < vectors; v++) sums[i][v] = broadcast(0.0f);
      REGARD_ISA::multiply<Single, n, vectors>(Left{query, f.query.row, 1},
                                               Right{panels + in_panels(key, f.width), panel_keys}, f.width, sums);
      for (int i = 0; i < n; i++)
        for (int v = 0; v < vectors; v++) put(i, key + v * Float::width, rectified(f.rectifier, sums[i][v]));
    });
  }
};

}  // namespace
}  // namespace regard::REGARD_ISA
