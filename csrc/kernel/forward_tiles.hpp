// The forward pass where tile registers multiply: beside the products of some rows, exp is taken of the scores of
// others.

#pragma once

#include <cstdint>

#include "attention.hpp"
#include "blocks.hpp"
#include "forward.hpp"
#include "pack.hpp"
#include "rows.hpp"
#include "simd.hpp"
#include "tile.hpp"

#ifdef REGARD_TILES
namespace regard::REGARD_ISA {
namespace {

// The rows of a tile on their way from scores to output. Split weights take more room than scores, which therefore
// begin later: so far that none is overwritten before it is read.
template <class Lane>
struct Stage {
  static constexpr int64_t line = maximum(block_keys, lanes_of<Lane>(block_keys));
  Scored tile;
  alignas(64) float weights[TileRegisters::rows * line];
  alignas(64) float keep[TileRegisters::rows];  // the factors by which the sums so far shrink under the new maxima
  bool hidden[TileRegisters::rows][block_keys];
};

// Two tiles of rows of a block of keys at a time. While the tile registers multiply for one, a few scores of the other
// become weights after each product or three: between long runs of products the processor would not find that work.
template <class Pass, bool entropy>
struct Pipeline {
  using Lane = typename Pass::Lane;
  static constexpr int64_t line = Stage<Lane>::line;
  static constexpr bool has_maximum = entropy && Lane::planes > 1;  // may a row that is weighed in steps
  static constexpr int steps_at_once = Lane::planes > 1 ? 1 : 2;    // of weighing, beside one to three products
  const Pass& pass;
  const HeadGroup& group;
  const Values& values;
  const Accumulated sofar;
  Stage<Lane> first, second;
  Stage<Lane>*current = &first, *before = nullptr;
  // What is being weighed: scores j … of row number `row` of a stage.
  Stage<Lane>* weighed = nullptr;
  int row = 0;
  int64_t j = 0, end = 0;
  Weighing<Lane, entropy, false, has_maximum> weighing{1, 0, 0, 0};

  // Leaves memory as it is.
  Pipeline(const Pass& pass, const HeadGroup& group, const Values& values, Accumulated sofar)
      : pass(pass), group(group), values(values), sofar(sofar) {}

  void add(const Scored& tile, const float* query, const Keys& keys, bool finite) {
    float* scores = current->weights + line - block_keys;
    current->tile = tile, current->tile.scores = scores;
    pass.ask_for_next(values, tile.first, tile.next);
    multiply_in_tiles<Lane>(query, pass.blocks.lanes, keys.panels, tile.keys, scores, line,
                            [&]() __attribute__((always_inline)) { weigh_some(); });
    if (!finite || !keys.finite)
      pass.blocks.multiply_nonfinite(tile.count, group, tile.rows, tile.first, tile.known, tile.keys, scores, line);
    finish_weighing();
    weighed = current, row = 0;
    average([&]() __attribute__((always_inline)) { weigh_some(); });
    before = current, current = current == &first ? &second : &first;
  }

  // After the last tile of a block.
  void flush() {
    finish_weighing();
    average(NoWork());
    before = nullptr;
  }

 private:
  void finish_weighing() {
    while (weighed) weigh_some();
  }

  inline __attribute__((always_inline)) void weigh_some() {
    if (j == end) {
      next_row();
      if (j == end) return;
    }
    for (int step = 0; step < steps_at_once && j < end; step++, j += border<Lane>)
      weighing.step(weighed->tile.scores + row * line, weighed->weights + row * line, j);
  }

  // Ends a row, if one was begun, and begins the next.
  __attribute__((noinline)) void next_row() {
    if (!weighed) return;
    const Scored& tile = weighed->tile;
    if (end > 0) {
      weighing.add_to(sofar.state[tile.at + row]);
      row++;
    }
    j = end = 0;
    if (row == tile.count) {
      weighed = nullptr;
      return;
    }
    float *scores = tile.scores + row * line, top;
    finish_scores(1, pass.s, group.batch, tile.rows + row, tile.first, tile.keys, scores, line, &top);
    const float known = sofar.state[tile.at + row].max, max = maximum(known, top);
    alignas(64) float keep[Float::width] = {tile.fresh ? -infinity : known - pass.reference_score(max)};
    if (tile.fresh || max == known)
      keep[0] = tile.fresh ? 0 : 1;
    else
      pass.decay_factors(keep, 1);
    weighed->keep[row] = keep[0];
    pass.begin_row(tile, row, top, keep[0], scores, values.finite ? nullptr : weighed->hidden[row], sofar);
    if (pass.f.distance || (entropy && !has_maximum && top == max)) {  // the whole row at once
      pass.weigh_row(tile, row, top, scores, weighed->weights + row * line, sofar);
      row++;
      return;
    }
    weighing = Weighing<Lane, entropy, false, has_maximum>(pass.factor, pass.reference_score(max), 0, 0);
    j = tile.keys.from, end = tile.keys.to;
  }

  // The output of the rows before.
  template <class Meanwhile>
  void average(Meanwhile&& meanwhile) {
    if (!before || !pass.f.output.data) return;
    const Scored& tile = before->tile;
    float* output = sofar.output + tile.at * pass.width;
    const Range there{tile.keys.from, minimum(tile.keys.to, tile.known)};
    if (!values.finite) {
      for (int i = 0; i < tile.count; i++)
        pass.average_visible(before->weights + i * line, before->hidden[i], there, values.packed, before->keep[i],
                             output + i * pass.width);
      return;
    }
    const int64_t lane = lane_of<Lane>(there.from), lanes = lanes_of<Lane>(there.to - there.from);
    accumulate_in_tiles<Lane>(tile.count, Left{before->weights + lane, line, 1},
                              Right{values.packed + lane * pass.width, pass.width}, lanes,
                              tile.fresh ? nullptr : before->keep, output, pass.width, pass.width, meanwhile);
  }
};

template <bool entropy, class Pass, class Prepare>
void run_pipeline(const Pass& pass, const HeadGroup& group, int64_t first_row, int64_t count, Range keys,
                  Accumulated sofar, float* memory, Prepare&& prepare, const Values& values) {
  const auto& blocks = pass.blocks;
  Row rows[block_rows];
  load_rows(pass.s, group, first_row, count, keys, rows);
  const bool finite = blocks.load_queries(group, rows, count, memory);
  const TileRegisters registers;
  Pipeline<Pass, entropy> pipeline{pass, group, values, sofar};
  Keys loaded{};
  visit_tiles<typename Pass::Lane, TileRegisters::rows>(
      rows, count, blocks.keys_at_once(),
      [&](int64_t first, int64_t known) {
        pipeline.flush();
        loaded = blocks.load_keys(group.batch, group.key_head, first, known, memory + blocks.panels_at(),
                                  memory + blocks.staging_at());
        prepare(first, known);
      },
      [&](int n, int64_t r, int64_t first, int64_t known, bool fresh, Range next, Range tile_keys) {
        pipeline.add(Scored{rows + r, r, first, known, n, fresh, next, tile_keys, nullptr, nullptr},
                     memory + r * blocks.query_lanes, loaded, finite);
      });
  pipeline.flush();
}

template <class Pass, class Prepare>
void run_in_tiles(const Pass& pass, const HeadGroup& group, int64_t first_row, int64_t count, Range keys,
                  Accumulated sofar, float* memory, Prepare&& prepare, const Values& values) {
  pass.f.entropy ? run_pipeline<true>(pass, group, first_row, count, keys, sofar, memory, prepare, values)
                 : run_pipeline<false>(pass, group, first_row, count, keys, sofar, memory, prepare, values);
}

}  // namespace
}  // namespace regard::REGARD_ISA
#endif
