// The tiles of a map of the weights, recomputed from scores and lse. Every second pass is made of them.

#pragma once

#include <cstdint>

#include "attention.hpp"
#include "blocks.hpp"
#include "factors.hpp"
#include "pack.hpp"
#include "rows.hpp"
#include "simd.hpp"
#include "small_query.hpp"

namespace regard::REGARD_ISA {
namespace {

// √(Σ_hh′ w^h w^h′ G[h,h′]): the weights of all heads for a tile, and the Gram matrices of its keys, in the cache.
template <class Lane>
struct HeadsCombined {
  const Scores& s;
  const Map& m;
  const Blocks<Lane>& blocks;
  int64_t forms = s.heads * (s.heads + 1) / 2;
  int64_t step = keys_at_once();
  // The stride of rows of weights; no power of two, or the rows would share few sets of the cache.
  int64_t line = step + Float::width;

  // So many that the keys of all heads and the Gram matrices stay in the second-level cache.
  int64_t keys_at_once() const {
    constexpr int64_t cache = int64_t(1) << 18;  // floats
    const int64_t fitting = cache / (s.groups * blocks.lanes + forms + 1) / panel_keys * panel_keys;
    return maximum(panel_keys, minimum(fitting, block_keys));
  }

  int64_t gram_at() const { return s.groups * step * blocks.lanes; }
  int64_t weights_at() const { return gram_at() + forms * step; }
  int64_t query_at() const { return weights_at() + s.heads * tile_rows * line; }
  int64_t staging_at() const { return query_at() + tile_rows * blocks.query_lanes; }
  int64_t size() const { return round_up(staging_at() + blocks.staging_size(), 16); }

  template <class Prepare, class Visit>
  void visit(int64_t batch, int64_t first_row, int64_t count, Range keys, float* memory, Prepare&& prepare,
             Visit&& visit) const {
    Row rows[block_rows];
    load_rows(s, HeadGroup{batch, 0, 0, 1}, first_row, count, keys, rows);
    visit_tiles<Lane>(
        rows, count, step,
        [&](int64_t first, int64_t known) {
          for (int64_t g = 0; g < s.groups && !blocks.direct; g++)
            blocks.load_keys(batch, g, first, known, memory + g * step * blocks.lanes, memory + staging_at());
          pack_gram(batch, first, known, memory + gram_at());
          prepare(first, known);
        },
        [&](int count, int64_t r, int64_t first, int64_t known, bool fresh, Range next, Range tile_keys) {
          with_constant<tile_rows>(count, [&]<int n>() {
            for (int64_t h = 0; h < s.heads; h++) weigh_head<n>(batch, h, rows + r, first, known, tile_keys, memory);
            alignas(64) float numbers[tile_rows * block_keys];
            combine<n>(memory + weights_at(), memory + gram_at(), tile_keys, numbers);
            visit.template operator()<n>(
                Scored{rows + r, r, first, known, n, fresh, next, tile_keys, numbers, nullptr});
          });
        });
  }

 private:
  // The lower triangles of symmetric matrices, [h, h′ ≤ h][key], what is off the diagonal doubled.
  void pack_gram(int64_t batch, int64_t first, int64_t known, float* to) const {
    for (int64_t h = 0; h < s.heads; h++) {
      for (int64_t other = 0; other <= h; other++, to += step) {
        const float* from = m.gram.data + batch * m.gram.batch + first * m.gram.row;
        for (int64_t j = 0; j < known; j++, from += m.gram.row)
          to[j] = from[h * s.heads + other] + (other < h ? from[other * s.heads + h] : 0);
        for (int64_t j = known; j < step; j++) to[j] = 0;
      }
    }
  }

  template <int n>
  __attribute__((noinline)) void weigh_head(int64_t batch, int64_t head, const Row* rows, int64_t first, int64_t known,
                                            Range keys, float* memory) const {
    float *query = memory + query_at(), *weights = memory + weights_at() + head * tile_rows * line;
    const int64_t group = head / (s.heads / s.groups);
    Row own[n];
    for (int i = 0; i < n; i++) {
      own[i] = rows[i], own[i].head = head;
      blocks.pack_query(batch, own[i], query + i * blocks.query_lanes);
    }
    Keys loaded{memory + group * step * blocks.lanes, nullptr};
    if (blocks.direct) loaded = blocks.load_keys(batch, group, first, known, nullptr, nullptr);
    float top[n];
    score<Lane, n>(s, batch, own, query, blocks.lanes, loaded, first, known, keys, weights, line, top);
    const double* lse = m.lse + (batch * s.heads + head) * s.queries;
    for (int i = 0; i < n; i++) weigh(weights + i * line, keys, to_powers(s), lse[own[i].query]);
  }

  // A key that no head gives any weight has the number 0, whatever its matrix is.
  template <int n>
  __attribute__((noinline)) void combine(const float* weights, const float* gram, Range keys, float* numbers) const {
    const Float zero = broadcast(0.0f);
    for (int64_t j = keys.from; j < keys.to; j += Float::width) {
      Float forms[n], mass[n];
      for (int i = 0; i < n; i++) forms[i] = mass[i] = zero;
      const float* matrix = gram + j;
      for (int64_t h = 0; h < s.heads; h++) {
        Float sums[n];
        for (int i = 0; i < n; i++) sums[i] = zero;
        const float* own = weights + h * tile_rows * line + j;
        for (const float* other = weights + j; other <= own; other += tile_rows * line, matrix += step) {
          const Float product = load(matrix);
          for (int i = 0; i < n; i++) sums[i] = multiply_add(product, load(other + i * line), sums[i]);
        }
        for (int i = 0; i < n; i++) {
          const Float weight = load(own + i * line);
          forms[i] = multiply_add(weight, sums[i], forms[i]);
          mass[i] = mass[i] + weight;
        }
      }
      for (int i = 0; i < n; i++) {
        const Float length = square_root(larger(zero, forms[i]));  // nan stays nan
        store(numbers + i * block_keys + j, where_at_most(mass[i], zero, zero, length));
      }
    }
  }
};

template <class Lane>
struct Tiles {
  const Scores& s;
  const Map& m;
  Blocks<Lane> blocks{s, is_small_query(s)};
  HeadsCombined<Lane> combined{s, m, blocks};
  Factors factors{m};

  int64_t heads() const { return m.gram.data ? 1 : s.heads; }  // of the map
  int64_t pairs() const { return s.batch * heads(); }          // of a sequence and a head
  int64_t factors_at() const { return m.gram.data ? combined.size() : blocks.size(); }
  int64_t size() const { return factors_at() + factors.size(); }  // of the memory that `visit` works in

  // Visits all numbers of `count` rows and a range of keys of a pair: for each block of keys that any row may see it
  // calls prepare(first, known), then visit.operator()<rows>(tile), where the numbers stand in place of the scores.
  template <class Prepare, class Visit>
  void visit(int64_t pair, int64_t first_row, int64_t count, Range keys, float* memory, Prepare&& prepare,
             Visit&& visit) const {
    const HeadGroup group = m.gram.data ? HeadGroup{pair, 0, 0, 1} : head_group(s, pair, 1);
    float* panels = memory + factors_at();
    const auto load = [&](int64_t first, int64_t known) {
      factors.load(group, first, known, panels);
      prepare(first, known);
    };
    const auto finish = [&]<int n>(const Scored& tile) {
      if (m.count) factors.multiply<n>(group, tile, panels);
      visit.template operator()<n>(tile);
    };
    if (m.gram.data) return combined.visit(group.batch, first_row, count, keys, memory, load, finish);
    const double* lse = m.lse + pair * s.queries;
    blocks.visit(group, first_row, count, keys, memory, load, [&]<int n>(const Scored& tile) {
      for (int i = 0; i < n; i++) weigh(tile.scores + i * block_keys, tile.keys, to_powers(s), lse[tile.rows[i].query]);
      finish.template operator()<n>(tile);
    });
  }
};

}  // namespace
}  // namespace regard::REGARD_ISA
