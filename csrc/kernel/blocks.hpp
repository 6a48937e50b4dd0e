// The scores of a block of rows, tile by tile: queries and keys are packed, multiplied and modified.

#pragma once

#include <cstdint>

#include "attention.hpp"
#include "pack.hpp"
#include "rows.hpp"
#include "simd.hpp"
#include "small_query.hpp"
#include "tile.hpp"

namespace regard::REGARD_ISA {
namespace {

// The queries and keys of one head group, packed or, for a small query, the keys where they lie.
template <class Lane>
struct Blocks {
  const Scores& s;
  bool direct;                      // a small query reads keys where they lie
  Strided<const void> values = {};  // those of the keys, if they are read too
  int64_t value_dim = 0;
  int64_t lanes = lanes_of<Lane>(s.dim);                                    // of a query or key
  int64_t query_lanes = direct ? small_query_lanes(s.type, s.dim) : lanes;  // of one query, as it is packed

  // Fewer where they are long, so that they fit into the second-level cache.
  int64_t keys_at_once() const { return s.dim > 256 ? block_keys / 2 : block_keys; }
  int64_t panels_at() const { return direct ? 2 * largest_small_query * query_lanes : block_rows * lanes; }
  int64_t staging_at() const { return panels_at() + block_keys * (direct ? largest_small_query : lanes); }
  int64_t staging_size() const { return Float::width * round_up(lanes, Float::width); }
  int64_t size() const { return round_up(staging_at() + staging_size(), 16); }

  const char* query(int64_t batch, const Row& row) const {
    return at(s.query.data, s.type, batch * s.query.batch + row.head * s.query.head + row.query * s.query.row);
  }

  // Returns false where numbers that are not finite were split; so does `load_keys`, as `finite`.
  bool pack_query(int64_t batch, const Row& row, float* to) const {
    const char* from = query(batch, row);
    ask_for(from, s.query.row * 16 * bytes_of(s.type), s.dim * bytes_of(s.type));
    if (!direct) return pack_row<Lane>(from, s.type, s.dim, to, lanes);
    pack_small_query(from, s.type, s.dim, to);
    return true;
  }

  const char* key(int64_t batch, int64_t key_head, int64_t first) const {
    return at(s.key.data, s.type, batch * s.key.batch + key_head * s.key.head + first * s.key.row);
  }

  Keys load_keys(int64_t batch, int64_t key_head, int64_t first, int64_t known, float* panels, float* staging) const {
    const char* from = key(batch, key_head, first);
    if (direct) {
      const int64_t value = batch * values.batch + key_head * values.head + first * values.row;
      return {panels, from, false, Upcoming(values.data ? values.data : from, s.type, value, values.row, value_dim)};
    }
    Keys keys{panels, nullptr};
    keys.finite = pack_keys<Lane>(from, s.type, s.key.row, known, s.dim, panels, staging);
    return keys;
  }

  // For a small query whose rows fill the lanes: the queries turned, [lane][row]; and all products with a block of
  // keys.
  void turn_queries(int64_t count, float* memory) const {
    const int64_t columns = round_up(count, Float::width);
    __builtin_memset(memory + count * query_lanes, 0, (columns - count) * query_lanes * sizeof(float));
    for (int64_t r = 0; r < columns; r += Float::width) {
      for (int64_t lane = 0; lane < query_lanes; lane += Float::width) {
        transpose(memory + r * query_lanes + lane, query_lanes, turned(memory) + lane * columns + r, columns);
      }
    }
  }
  void multiply_by_rows(int64_t count, Keys keys, int64_t known, float* memory) const {
    const int64_t columns = round_up(count, Float::width);
    for (int64_t r = 0; r < columns; r += 2 * Float::width) {
      const float* query = turned(memory) + r;
      float* scores = memory + panels_at() + r * block_keys;
      with_constant<2>(int((columns - r) / Float::width), [&]<int vectors>() {
        with_type(s.type, [&]<Type type>() {
          products_by_rows<type, vectors>(query, columns, keys.direct, s.key.row, known, s.dim, keys.next, scores,
                                          block_keys);
        });
      });
    }
  }
  float* turned(float* memory) const { return memory + largest_small_query * query_lanes; }

  // Packs the queries; returns whether all of them are finite, or need not be.
  bool load_queries(const HeadGroup& group, const Row* rows, int64_t count, float* memory) const {
    bool finite = true;
    for (int64_t r = 0; r < count; r++) finite &= pack_query(group.batch, rows[r], memory + r * query_lanes);
    return finite;
  }

  // Visits all scores of `count` rows and a range of keys: for each block of keys it calls prepare(first, known), then
  // visit.operator()<rows>(tile) for at most tile_rows rows.
  template <class Prepare, class Visit>
  void visit(const HeadGroup& group, int64_t first_row, int64_t count, Range keys, float* memory, Prepare&& prepare,
             Visit&& visit) const {
    Row rows[block_rows];
    load_rows(s, group, first_row, count, keys, rows);
    [[maybe_unused]] const bool finite = load_queries(group, rows, count, memory);
    const bool by_rows = direct && rows_fill_lanes(s);
    if (by_rows) turn_queries(count, memory);
    [[maybe_unused]] const WithTiles<Lane> tiles;
    Keys loaded{};
    visit_tiles<Lane, rows_at_once<Lane>>(
        rows, count, keys_at_once(),
        [&](int64_t first, int64_t known) {
          loaded = load_keys(group.batch, group.key_head, first, known, memory + panels_at(), memory + staging_at());
          if (by_rows) multiply_by_rows(count, loaded, known, memory), loaded.have_products = true;
          prepare(first, known);
        },
        [&](int n, int64_t r, int64_t first, int64_t known, bool fresh, Range next, Range tile_keys) {
          alignas(64) float of_tile[rows_at_once<Lane> * block_keys];
          float top[rows_at_once<Lane>], *scores = by_rows ? memory + panels_at() + r * block_keys : of_tile;
          const float* query = memory + r * query_lanes;
#ifdef REGARD_TILES
          if constexpr (Lane::steps > 1) {
            multiply_in_tiles<Lane>(query, lanes, loaded.panels, tile_keys, scores, block_keys);
            if (!finite || !loaded.finite)
              multiply_nonfinite(n, group, rows + r, first, known, tile_keys, scores, block_keys);
            finish_scores(n, s, group.batch, rows + r, first, tile_keys, scores, block_keys, top);
          }
#endif
          for (int64_t from = 0; from < n; from += tile_rows) {
            with_constant<tile_rows>(int(minimum<int64_t>(tile_rows, n - from)), [&]<int height>() {
              float* of_rows = scores + from * block_keys;
              if constexpr (Lane::steps == 1)
                score<Lane, height>(s, group.batch, rows + r, query, lanes, loaded, first, known, tile_keys, of_rows,
                                    block_keys, top);
              visit.template operator()<height>(
                  Scored{rows + r + from, r + from, first, known, height, fresh, next, tile_keys, of_rows, top + from});
            });
          }
        });
  }

  void multiply_nonfinite(int n, const HeadGroup& group, const Row* rows, int64_t first, int64_t known, Range keys,
                          float* scores, int64_t stride) const {
    const void* queries[rows_at_once<Lane>];
    for (int r = 0; r < n; r++) queries[r] = query(group.batch, rows[r]);
    REGARD_ISA::multiply_nonfinite(s.type, n, queries, key(group.batch, group.key_head, first), s.key.row, s.dim,
                                   {keys.from, minimum(known, keys.to)}, scores, stride);
  }
};

}  // namespace
}  // namespace regard::REGARD_ISA
