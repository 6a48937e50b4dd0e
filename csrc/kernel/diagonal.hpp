// A diagonal of a map: as many pairs at a time as a panel has places, one row with one key.

#pragma once

#include <cstdint>

#include "attention.hpp"
#include "exponential.hpp"
#include "factors.hpp"
#include "map.hpp"
#include "memory.hpp"
#include "pack.hpp"
#include "parallel.hpp"
#include "rows.hpp"
#include "simd.hpp"

namespace regard::REGARD_ISA {
namespace {

#ifdef REGARD_TILES
// As the tile registers sum them up: of each 16 lanes first numbers and second numbers apart.
template <class Lane>
inline void products_in_tiles(const float* a, const float* b, int64_t lanes, float* products) {
  for (int64_t n = 0; n < panel_keys; n += Float::width) {
    Float sum = broadcast(0.0f);
    for (int64_t l = 0; l < lanes; l += Lane::steps * Lane::planes) {
      for (const auto& [of_a, of_b] : Lane::products) {
        const float* left_at = a + (l + of_a * Lane::steps) * panel_keys + n;
        const float* right_at = b + (l + of_b * Lane::steps) * panel_keys + n;
        Float first = broadcast(0.0f), second = first;
        for (int64_t k = 0; k < Lane::steps * panel_keys; k += panel_keys) {
          const Float left = load(left_at + k), right = load(right_at + k);
          first = multiply_add(low_half(left), low_half(right), first);
          second = multiply_add(high_half(left), high_half(right), second);
        }
        sum = sum + (first + second);
      }
    }
    store(products + n, sum);
  }
}
#endif

// a_r·b_r of two panels, summed in the order of `multiply`: to the last bit what a tile holds.
template <class Lane>
inline void products_of_pairs(const float* a, const float* b, int64_t lanes, float* products) {
  constexpr int vectors = Float::tile_vectors;
#ifdef REGARD_TILES
  if constexpr (Lane::steps > 1) return products_in_tiles<Lane>(a, b, lanes, products);
#endif
  Float sums[vectors];
  for (int v = 0; v < vectors; v++) sums[v] = broadcast(0.0f);
  for (int64_t l = 0; l < lanes; l++) {
    for (int v = 0; v < vectors; v++) {
      const int64_t at = l * panel_keys + v * Float::width;
      sums[v] = Lane::multiply_add(load(a + at), load(b + at), sums[v]);
    }
  }
  for (int v = 0; v < vectors; v++) store(products + v * Float::width, sums[v]);
}

// Pairs of a row and a key, of one head: row + r and key + r for r < count, at most as many as a panel has places.
template <class Lane>
struct Pairs {
  const Scores& s;
  const Map& m;
  int64_t lanes = lanes_of<Lane>(s.dim);
  int64_t widest = widest_vector();

  int64_t widest_vector() const {
    int64_t width = lanes;
    for (int64_t k = 0; k < m.count; k++) width = maximum(width, m.factors[k].width);
    return width;
  }
  int64_t second_at() const { return panel_keys * widest; }
  int64_t staging_at() const { return 2 * panel_keys * widest; }
  int64_t size() const { return round_up(staging_at() + Float::width * round_up(widest, Float::width), 16); }

  void compute(int64_t pair, int64_t row, int64_t key, int64_t count, float* memory, float* numbers) const {
    const HeadGroup group = head_group(s, pair, 1);
    alignas(64) float scores[panel_keys];
    score(group, row, key, count, memory, scores);
    weigh(m.lse + pair * s.queries + row, count, scores);
    if (m.count) multiply(group, row, key, count, memory, scores);
    __builtin_memcpy(numbers, scores, count * sizeof(float));
  }

 private:
  void score(const HeadGroup& group, int64_t row, int64_t key, int64_t count, float* memory, float* scores) const {
    const int64_t query_at = group.batch * s.query.batch + group.first_head * s.query.head + row * s.query.row;
    const int64_t key_at = group.batch * s.key.batch + group.key_head * s.key.head + key * s.key.row;
    float *second = memory + second_at(), *staging = memory + staging_at();
    const char *query = at(s.query.data, s.type, query_at), *own_key = at(s.key.data, s.type, key_at);
    bool finite = pack_panels<Lane>(query, s.type, s.query.row, count, s.dim, memory, staging);
    finite &= pack_panels<Lane>(own_key, s.type, s.key.row, count, s.dim, second, staging);
    products_of_pairs<Lane>(memory, second, lanes, scores);
    for (int64_t r = 0; r < count && !finite; r++) {
      const void* row_query = at(query, s.type, r * s.query.row);
      const char* row_key = at(own_key, s.type, r * s.key.row);
      multiply_nonfinite(s.type, 1, &row_query, row_key, s.key.row, s.dim, {0, 1}, scores + r, 1);
    }
    const bool ready = keeps_raw_products(s) && !s.mask.data;
    for (int64_t r = 0; r < count; r++) {
      const Row own = row_of(s, group, row + r);
      alignas(64) float alone[Float::width] = {scores[r]};
      if (key + r < own.start || key + r >= own.stop)
        alone[0] = -infinity;
      else if (!ready)
        apply_modifiers(s, group.batch, own, key + r, 1, alone, nullptr);
      scores[r] = alone[0];
    }
  }

  // exp(score − lse) of each row's own lse, as `weigh` in rows.hpp has it.
  void weigh(const double* lse, int64_t count, float* scores) const {
    const float factor = to_powers(s);
    alignas(64) float near[panel_keys] = {}, rest[panel_keys] = {}, fixed[panel_keys];
    bool any_fixed = false;
    for (int64_t r = 0; r < count; r++) {
      const bool finite = lse[r] < infinity && lse[r] > -infinity;
      const double level = finite ? lse[r] / (ln_2 * double(factor)) : 0;
      near[r] = minimum(maximum(float(level), -largest_float), largest_float);
      rest[r] = float((near[r] - level) * factor);
      fixed[r] = -1;
      if (lse[r] < infinity) continue;  // else a sink that takes everything, or nan
      fixed[r] = scores[r] == -infinity || lse[r] == infinity ? 0 : float(lse[r]);
      any_fixed = true;
    }
    const Float scale = broadcast(factor), smallest = broadcast(smallest_difference(factor));
    for (int64_t j = 0; j < count; j += Float::width)
      store(scores + j, exp2(larger(smallest, load(scores + j) - load(near + j)), scale, load(rest + j)));
    for (int64_t r = 0; any_fixed && r < count; r++) scores[r] = fixed[r] == -1 ? scores[r] : fixed[r];
  }

  void multiply(const HeadGroup& group, int64_t row, int64_t key, int64_t count, float* memory, float* numbers) const {
    const Float zero = broadcast(0.0f);
    alignas(64) float product[panel_keys];
    for (int64_t j = 0; j < panel_keys; j++) product[j] = 1;
    for (int64_t k = 0; k < m.count; k++) {
      const Factor& f = m.factors[k];
      alignas(64) float own[panel_keys] = {};
      const float *a = nullptr, *b = nullptr;
      if (f.query.data)
        a = f.query.data + group.batch * f.query.batch + group.first_head * f.query.head + row * f.query.row;
      if (f.key.data)
        b = f.key.data + group.batch * f.key.batch + group.first_head / f.key_repeat * f.key.head + key * f.key.row;
      if (a && b) {
        float *second = memory + second_at(), *staging = memory + staging_at();
        pack_panels<Single>(a, Type::float32, f.query.row, count, f.width, memory, staging);
        pack_panels<Single>(b, Type::float32, f.key.row, count, f.width, second, staging);
        products_of_pairs<Single>(memory, second, f.width, own);
      } else {
        for (int64_t r = 0; r < count; r++) own[r] = a ? a[r * f.query.row] : b[r * f.key.row];
      }
      for (int64_t j = 0; j < panel_keys; j += Float::width)
        store(product + j, load(product + j) * rectified(f.rectifier, load(own + j)));
    }
    for (int64_t j = 0; j < panel_keys; j += Float::width) {
      const Float weight = load(numbers + j);
      store(numbers + j, where_at_most(weight, zero, zero, weight * load(product + j)));
    }
  }
};

// The same from tiles, of which one number a row is used: for combined heads, and for small queries.
template <class Lane>
void diagonal_of_tiles(const Tiles<Lane>& tiles, int64_t pair, int64_t row, int64_t key, int64_t count, float* memory,
                       float* numbers) {
  for (int64_t r = 0; r < count; r++) numbers[r] = 0;
  tiles.visit(
      pair, row, count, {key, key + count}, memory, [](int64_t, int64_t) {},
      [&]<int n>(const Scored& tile) {
        for (int r = 0; r < n; r++) {
          const int64_t own = key + tile.at + r - tile.first;
          if (own >= tile.keys.from && own < minimum(tile.keys.to, tile.known))
            numbers[tile.at + r] = tile.scores[r * block_keys + own];
        }
      });
}

template <class Lane>
void diagonal_in(const Scores& s, const Map& m, const Diagonal& d, int threads) {
  const Tiles<Lane> tiles{s, m};
  const Pairs<Lane> panels{s, m};
  const bool by_tiles = m.gram.data || tiles.blocks.direct;
  constexpr int64_t together = 8 * panel_keys;  // of a thread's turn
  const int64_t turns = (d.count + together - 1) / together;
  for_each(turns * tiles.pairs(), threads, [&](int64_t item) {
    const int64_t pair = item / turns, from = item % turns * together, to = minimum(from + together, d.count);
    float* memory = thread_memory(by_tiles ? tiles.size() : panels.size());
    for (int64_t first = from; first < to; first += panel_keys) {
      const int64_t row = d.first_row + first, key = d.first_column + first, count = minimum(panel_keys, to - first);
      float* numbers = d.numbers + pair * d.count + first;
      if (by_tiles)
        diagonal_of_tiles(tiles, pair, row, key, count, memory, numbers);
      else
        panels.compute(pair, row, key, count, memory, numbers);
    }
  });
}

}  // namespace
}  // namespace regard::REGARD_ISA
