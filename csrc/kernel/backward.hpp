// The gradients, a block of keys and a block of rows at a time. The weights are recomputed from the scores and the lse,
// and never leave the cache.
//
//     dw_ij = do_i·v_j      δ_i = do_i·o_i − dlse_i      ds_ij = w_ij (dw_ij − δ_i)      dv_j = Σ_i w_ij do_i
//     dq_i = scale Σ_j ds_ij k_j      dk_j = scale Σ_i ds_ij q_i      (Dao et al. 2022, algorithm 4)
//
// Of a short sequence all is one block: what lies in memory as products read it is read there, and sums go where they
// are wanted. Only keys and values have to be turned, for two of the five products.

#pragma once

#include <cstdint>
#include <initializer_list>

#include "apply.hpp"
#include "attention.hpp"
#include "backward_blocks.hpp"
#include "memory.hpp"
#include "pack.hpp"
#include "parallel.hpp"
#include "rows.hpp"
#include "simd.hpp"
#include "small_query.hpp"
#include "tile.hpp"

namespace regard::REGARD_ISA {
namespace {

// What a thread works in.
struct Rooms {
  float *lanes, *query, *finite_query, *grad_output, *weights, *grads, *slopes;
  float *panels, *value_panels, *key, *grad_key, *grad_value, *staging, *grad_query;
  RowState* states;
};

// The gradients from a range of keys, for a group of query heads.
template <class Lane>
struct Gradient {
  const Scores& s;
  const Backward& b;
  int64_t n_rep = s.groups ? s.heads / s.groups : 1;
  int64_t lanes = lanes_of<Lane>(s.dim);
  int64_t dims = round_up(s.dim, Float::width), value_dims = round_up(b.value_dim, Float::width);
  int64_t rows = s.queries * n_rep;
  bool plain = s.softcap == 0 && !b.grad_bias.data;  // the gradients of scores are those of products, but for the scale

  // Lays out the memory, of which there may be none yet; returns how many floats it takes.
  int64_t lay_out(float* memory, Rooms& rooms) const {
    int64_t end = 0;
    const auto take = [&](int64_t size) {
      float* from = memory ? memory + end : nullptr;
      end += round_up(size, 16);
      return from;
    };
    const int64_t tile_lanes = (short_rows + rows_at_once<Lane>)*lanes;  // a tile is read whole
    rooms = {take(tile_lanes),
             take(short_rows * dims),
             take(short_rows * dims),
             take(short_rows * value_dims),
             take(short_rows * line),
             take(short_rows * line),
             take(short_rows * line),
             take(block_keys * lanes),
             take(block_keys * b.value_dim),
             take(block_keys * dims),
             take(block_keys * dims),
             take(block_keys * value_dims),
             take(Float::width * round_up(maximum(lanes, value_dims), Float::width)),
             take(rows * dims),
             reinterpret_cast<RowState*>(take(rows * int64_t(sizeof(RowState) / sizeof(float))))};
    return end;
  }

  // Whether sums of n numbers may be gathered in the result itself.
  bool in_place(int64_t n) const { return b.grad_type == Type::float32 && n % Float::width == 0; }

  const char* row_at(const Strided<const void>& of, const HeadGroup& group, const Row& row) const {
    return at(of.data, s.type, group.batch * of.batch + row.head * of.head + row.query * of.row);
  }
  int64_t number(const HeadGroup& group, const Row& row) const {  // of a row among all
    return (group.batch * s.heads + row.head) * s.queries + row.query;
  }

  void compute_states(const HeadGroup& group, RowState* states) const {
    const double unit = 1 / (ln_2 * double(to_powers(s)));
    for (int64_t r = 0; r < rows; r++) {
      const Row row = row_of(s, group, r);
      const int64_t n = number(group, row);
      RowState& state = states[r];
      state.delta = dot(row_at(b.output, group, row), row_at(b.grad_output, group, row), s.type, b.value_dim);
      if (b.grad_lse) state.delta = float(state.delta - b.grad_lse[n]);
      if (b.delta) b.delta[n] = state.delta;
      const double level = b.lse[n] == -infinity ? 0 : b.lse[n] * unit;
      state.level = minimum(maximum(float(level), -largest_float), largest_float);
      state.rest = float((state.level - level) * to_powers(s));
    }
  }

  KeyBlock load_keys(const HeadGroup& group, int64_t first, int64_t known, const Rooms& rooms) const {
    const char* key =
        at(s.key.data, s.type, group.batch * s.key.batch + group.key_head * s.key.head + first * s.key.row);
    const char* value =
        at(b.value.data, s.type, group.batch * b.value.batch + group.key_head * b.value.head + first * b.value.row);
    pack_keys<Lane>(key, s.type, s.key.row, known, s.dim, rooms.panels, rooms.staging);
    pack_keys<Single>(value, s.type, b.value.row, known, b.value_dim, rooms.value_panels, rooms.staging);
    bool finite = true;
    for (int64_t j = 0; j < known; j += Float::width)
      finite &= finite_vectors(rooms.value_panels + in_panels(j, b.value_dim), b.value_dim, panel_keys);
    if (!finite) zero_nonfinite(rooms.value_panels, round_up(known, panel_keys) * b.value_dim);
    const FloatRows rows = float_rows(key, s.type, s.key.row, known, s.dim, rooms.key);
    return {first, known, rooms.panels, rooms.value_panels, finite_rows(rows, known, rooms.key)};
  }

  FloatRows read(const Strided<const void>& of, const RowBlock& part, int64_t n, float* room) const {
    if (n_rep == 1) return float_rows(row_at(of, part.group, part.rows[0]), s.type, of.row, part.count, n, room);
    const int64_t width = round_up(n, Float::width);
    bool finite = true;
    for (int64_t r = 0; r < part.count; r++)
      finite &= pack_values<Single>(row_at(of, part.group, part.rows[r]), s.type, 0, 1, n, room + r * width, width);
    return {room, width, finite};
  }

  // Looks up the rows, and packs them if any sees any of the keys; returns whether one does.
  bool load_rows(const HeadGroup& group, int64_t first, const KeyBlock& block, const Rooms& rooms,
                 RowBlock& part) const {
    part.group = group, part.first = first, part.count = minimum(short_rows, rows - first), part.tile_count = 0;
    const int64_t end = block.first + block.known;
    for (int64_t r = 0; r < part.count; r++) {
      Row& row = part.rows[r] = row_of(s, group, first + r);
      row.start = maximum(row.start, block.first), row.stop = minimum(row.stop, end);
    }
    bool sees = false;
    in_equal_parts(part.count, block.known <= Float::width ? narrow_rows : tile_rows, [&](int64_t r, int64_t n) {
      Range keys = key_range(part.rows + r, n);
      sees |= keys.from < keys.to;
      keys.from = maximum<int64_t>(0, keys.from - block.first) / border<Lane> * border<Lane>;
      keys.to = maximum(keys.from, round_up(keys.to - block.first, border<Lane>));
      part.tiles[part.tile_count++] = {r, n, keys};
    });
    if (!sees) return false;
    const FloatRows query = read(s.query, part, s.dim, rooms.query);
    part.lanes = query.data, part.lanes_row = query.row;
    if constexpr (!std::is_same_v<Lane, Single>) {
      part.lanes = rooms.lanes, part.lanes_row = lanes;
      for (int64_t r = 0; r < part.count; r++)
        pack_row<Lane>(row_at(s.query, group, part.rows[r]), s.type, s.dim, rooms.lanes + r * lanes, lanes);
    }
    part.query = finite_rows(query, part.count, rooms.finite_query);
    part.grad_output = read(b.grad_output, part, b.value_dim, rooms.grad_output);
    part.states = rooms.states + first;
    return true;
  }

  // The weights of a tile and the gradients of its scores, times the scale and the slope of the softcap: those of the
  // products q·k. 0 where a row sees nothing.
  void compute_tile(const KeyBlock& block, const RowBlock& part, const RowTile& tile, const Rooms& rooms) const {
    const Range keys = tile.keys, known{keys.from, minimum(keys.to, round_up(block.known, Float::width))};
    float *weights = rooms.weights + tile.at * line, *grads = rooms.grads + tile.at * line;
    float* slopes = s.softcap != 0 ? rooms.slopes + tile.at * line : nullptr;
    multiply_panels<Lane>(tile.count, Left{part.lanes + tile.at * part.lanes_row, part.lanes_row, 1}, block.panels,
                          lanes, keys, weights);
    const FloatRows& left = part.grad_output;
    multiply_panels<Single>(tile.count, Left{left.data + tile.at * left.row, left.row, 1}, block.value_panels,
                            b.value_dim, known, grads);
    for (int64_t r = 0; r < tile.count; r++, weights += line, grads += line) {
      const Row& row = part.rows[tile.at + r];
      if (is_modified(s, row, block.first, keys)) {
        apply_modifiers(s, part.group.batch, row, block.first + keys.from, keys.to - keys.from, weights + keys.from,
                        slopes ? slopes + r * line + keys.from : nullptr);
      }
      weigh_row(part, part.states[tile.at + r], row, known, weights, grads);
      for (float* numbers : {weights, grads}) {
        for (int64_t j = 0; j < keys.from; j++) numbers[j] = 0;
        for (int64_t j = keys.to; j < block.known; j++) numbers[j] = 0;
      }
      if (!plain) finish_grads(block, part, row, known, slopes + r * line, grads);
    }
  }

  // From the scores of a row to its weights, and from dw to ds.
  void weigh_row(const RowBlock& part, const RowState& state, const Row& row, Range keys, float* weights,
                 float* grads) const {
    const Float zero = broadcast(0.0f), scale = broadcast(plain ? s.scale : 1), delta = broadcast(state.delta);
    const double lse = b.lse[number(part.group, row)];
    const bool usual = lse < infinity;
    if (!usual) weigh(weights, keys, to_powers(s), lse);
    const Float factor = broadcast(to_powers(s)), level = broadcast(state.level), rest = broadcast(state.rest);
    const Float smallest = broadcast(smallest_difference(to_powers(s)));
    for (int64_t j = keys.from; j < keys.to; j += Float::width) {
      Float weight = load(weights + j);
      if (usual) store(weights + j, weight = exp2(larger(smallest, weight - level), factor, rest));
      store(grads + j, where_at_most(weight, zero, zero, weight * (load(grads + j) - delta) * scale));
    }
  }

  void finish_grads(const KeyBlock& block, const RowBlock& part, const Row& row, Range keys, const float* slopes,
                    float* grad) const {
    const auto& bias = b.grad_bias;
    if (bias.data) {
      float* to = bias.data + part.group.batch * bias.batch + row.head * bias.head + row.query * bias.row +
                  block.first * bias.column;
      const int64_t end = minimum(keys.to, block.known);
      for (int64_t j = keys.from; j < end; j++) to[j * bias.column] += grad[j];
    }
    const Float zero = broadcast(0.0f), scale = broadcast(s.scale);
    for (int64_t j = keys.from; j < keys.to; j += Float::width) {
      const Float unscaled = load(grad + j);
      Float scaled = unscaled * scale;
      if (s.softcap != 0) scaled = where_at_most(absolute(unscaled), zero, zero, scaled * load(slopes + j));
      store(grad + j, scaled);
    }
  }

  // sums[j, …] = Σ_r left[r,j] · right[r, …], added to what is there unless it is fresh; only of rows that see the
  // keys.
  void sum_over_rows(const float* left, const FloatRows& right, const RowBlock& part, int64_t known, bool fresh,
                     Sums sums, int64_t width) const {
    in_equal_parts(known, width == Float::width ? narrow_rows : tile_rows, [&](int64_t j, int64_t count) {
      const Range seeing = part.seeing({j, j + count});
      sum_up(count, Left{left + seeing.from * line + j, 1, line},
             Right{right.data + seeing.from * right.row, right.row}, seeing.to - seeing.from, fresh, sums.from(j),
             width);
    });
  }

  // Adds what a block of rows and a block of keys give to the sums, or writes it, where they are fresh.
  void add(const KeyBlock& block, const RowBlock& part, const Rooms& rooms, Sums grad_key, Sums grad_value,
           bool fresh_keys, Sums grad_query, bool fresh_queries) const {
    for (int64_t t = 0; t < part.tile_count; t++) compute_tile(block, part, part.tiles[t], rooms);
    sum_over_rows(rooms.weights, part.grad_output, part, block.known, fresh_keys, grad_value, value_dims);
    sum_over_rows(rooms.grads, part.query, part, block.known, fresh_keys, grad_key, dims);
    for (int64_t t = 0; t < part.tile_count; t++) {
      const RowTile& tile = part.tiles[t];
      const int64_t from = tile.keys.from, to = maximum(from, minimum(tile.keys.to, block.known));
      sum_up(tile.count, Left{rooms.grads + tile.at * line + from, line, 1},
             Right{block.key.data + from * block.key.row, block.key.row}, to - from, fresh_queries,
             grad_query.from(tile.at), dims);
    }
  }

  // The gradients of all rows of a group from a range of keys, with the sums for the queries where they are to go.
  void add_range(const HeadGroup& group, Range keys, const Rooms& rooms, Sums grad_query) const {
    compute_states(group, rooms.states);
    if (keys.from >= keys.to) clear(grad_query, rows, dims);
    const auto room = [&](const Strided<void>& of, int64_t n, int64_t first, float* memory) -> Sums {
      if (!in_place(n) || rows > short_rows) return {memory, round_up(n, Float::width)};
      return {static_cast<float*>(of.data) + group.batch * of.batch + group.key_head * of.head + first * of.row,
              of.row};
    };
    for (int64_t first = keys.from; first < keys.to; first += block_keys) {
      const KeyBlock block = load_keys(group, first, minimum(block_keys, keys.to - first), rooms);
      const Sums grad_key = room(b.grad_key, s.dim, first, rooms.grad_key);
      const Sums grad_value = room(b.grad_value, b.value_dim, first, rooms.grad_value);
      bool fresh = true;
      for (int64_t row = 0; row < rows; row += short_rows) {
        RowBlock part;
        if (load_rows(group, row, block, rooms, part)) {
          add(block, part, rooms, grad_key, grad_value, fresh, grad_query.from(row), first == keys.from);
          fresh = false;
        } else if (first == keys.from) {
          clear(grad_query.from(row), part.count, dims);
        }
      }
      if (fresh) clear(grad_key, block.known, dims), clear(grad_value, block.known, value_dims);
      write(grad_key, rooms.grad_key, group, first, block.known, s.dim, b.grad_key);
      write(grad_value, rooms.grad_value, group, first, block.known, b.value_dim, b.grad_value);
    }
  }

  void clear(Sums sums, int64_t count, int64_t n) const {
    for (int64_t r = 0; r < count; r++) __builtin_memset(sums.data + r * sums.row, 0, n * sizeof(float));
  }

  // Sums for keys to where they are wanted, if they were gathered in `room`.
  void write(Sums sums, const float* room, const HeadGroup& group, int64_t first, int64_t count, int64_t n,
             const Strided<void>& of) const {
    if (sums.data != room) return;
    for (int64_t j = 0; j < count; j++)
      write_row(sums.data + j * sums.row, n, of, group.batch, group.key_head, first + j);
  }
  void write_row(const float* from, int64_t n, const Strided<void>& of, int64_t batch, int64_t head,
                 int64_t row) const {
    char* to = static_cast<char*>(of.data) + (batch * of.batch + head * of.head + row * of.row) * size_of(b.grad_type);
    from_floats(from, b.grad_type, to, n);
  }
};

// Groups of so few products that handing each to a thread would take as long as computing it are computed together.
template <class Lane>
inline int64_t groups_at_once(const Gradient<Lane>& gradient) {
  constexpr int64_t products = int64_t(1) << 17;
  const auto& s = gradient.s;
  return maximum<int64_t>(1, products / maximum<int64_t>(1, gradient.rows * s.keys * (s.dim + gradient.b.value_dim)));
}

template <class Lane>
void backward_in(const Scores& s, const Backward& b, int threads) {
  const Gradient<Lane> gradient{s, b};
  const int64_t head_groups = s.batch * s.groups, blocks = (s.keys + block_keys - 1) / block_keys;
  const int64_t size = gradient.rows * gradient.dims;  // of the gradient of the queries of one group
  if (head_groups == 0) return;

  // Ranges of keys run in parallel, each with its own gradient of the queries; these are added up in order, so that the
  // bits do not depend on the number of threads. Sequences or heads that share a gradient of the bias take turns.
  const auto& bias = b.grad_bias;
  const bool turns =
      bias.data && ((bias.batch == 0 && s.batch > 1) || (bias.head == 0 && s.heads > 1) || bias.column == 0);
  constexpr int64_t largest_memory = int64_t(1) << 25;
  int64_t splits = turns ? 16 : (15 + head_groups) / head_groups;
  splits =
      maximum<int64_t>(1, minimum(splits, minimum(blocks, largest_memory / maximum<int64_t>(1, head_groups * size))));
  if (bias.data && bias.column == 0) splits = 1;
  const int64_t split = (blocks + splits - 1) / splits * block_keys;

  // What the ranges give for the queries of one group, written as their sum.
  const auto write_query = [&](int64_t n, float* from) {
    for (int64_t r = 0; r < gradient.rows; r++, from += gradient.dims) {
      for (int64_t range = 1; range < splits; range++) {
        for (int64_t d = 0; d < s.dim; d++) from[d] += from[range * size + d];
      }
      const int64_t head = n % s.groups * gradient.n_rep + r % gradient.n_rep;
      gradient.write_row(from, s.dim, b.grad_query, n / s.groups, head, r / gradient.n_rep);
    }
  };
  // A single range works in the thread's own memory, which stays in the cache, or in the result.
  Memory partial(splits > 1 ? head_groups * splits * size : 0);
  const bool direct = blocks == 1 && gradient.n_rep == 1 && gradient.in_place(s.dim);
  const int64_t at_once = turns ? head_groups : groups_at_once(gradient), runs = (head_groups + at_once - 1) / at_once;
  for_each(runs * splits, threads, [&](int64_t item) {
    Rooms rooms;
    gradient.lay_out(thread_memory(gradient.lay_out(nullptr, rooms)), rooms);
    const int64_t range = item / runs, run = item % runs, end = minimum(head_groups, (run + 1) * at_once);
    for (int64_t n = run * at_once; n < end; n++) {
      const HeadGroup group = head_group(s, n, gradient.n_rep);
      Sums grad_query{splits > 1 ? partial.data + (n * splits + range) * size : rooms.grad_query, gradient.dims};
      if (direct) {
        const auto& of = b.grad_query;
        grad_query = {static_cast<float*>(of.data) + group.batch * of.batch + group.first_head * of.head, of.row};
      }
      gradient.add_range(group, {range * split, minimum(s.keys, (range + 1) * split)}, rooms, grad_query);
      if (splits == 1 && !direct) write_query(n, grad_query.data);
    }
  });
  if (splits == 1) return;
  for_each(head_groups, threads, [&](int64_t n) { write_query(n, partial.data + n * splits * size); });
}

}  // namespace
}  // namespace regard::REGARD_ISA
