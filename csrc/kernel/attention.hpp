// The CPU kernel's interface: plain structs, raw pointers, strides counted in elements. No Python, no torch.
//
// B batch; H query heads, G key/value heads, H a multiple of G; Q queries; K keys; D dim; E value dim.
//
//     s_ij = softcap(scale · q_i·k_j) + bias_ij      w_ij = exp(s_ij − lse_i)      output_i = Σ_j w_ij v_j
//
// A map of the weights, of which they are the simplest, is a matrix M that is never stored either:
//
//     M_ij = w_ij · Π φ(a_i·b_j)      or, over the heads,      M_ij = √(Σ_hh′ w^h_ij w^h′_ij G_j[h,h′]) · Π φ(a_i·b_j)

#pragma once

#include <cstdint>

namespace regard {

enum class Type : int32_t { float32, bfloat16, float16 };

constexpr int64_t largest_dim = 512;  // of D and E
constexpr int64_t largest_top = 64;   // of k in the k largest weights of a row

// A (B,H,N,D) tensor whose last dimension lies side by side; a stride of 0 repeats.
template <class T>
struct Strided {
  T* data = nullptr;
  int64_t batch = 0, head = 0, row = 0;
};

// A (B,H,Q,K) tensor that may be broadcast: a stride of 0 repeats. Null where there is none.
template <class T>
struct Broadcast {
  T* data = nullptr;
  int64_t batch = 0, head = 0, row = 0, column = 0;
};

// The scores, as a rule.
struct Scores {
  Type type = Type::float32;  // of query, key and value
  int64_t batch = 0, heads = 0, groups = 0, queries = 0, keys = 0, dim = 0;
  Strided<const void> query, key;
  // Who may see whom: query i sees the keys start[i] ≤ j < stop[i], (B|1, Q); null where all see all.
  const int64_t *start = nullptr, *stop = nullptr;
  int64_t span_batch = 0;      // the stride of both: Q, or 0 where all sequences are alike
  Broadcast<const bool> mask;  // and, where given, those where it is true
  Broadcast<const void> bias;
  Type bias_type = Type::float32;
  const float* sinks = nullptr;  // (H)
  float scale = 1;
  float softcap = 0;  // 0: none
};

// Output, the normaliser of each row, and statistics of the rows in the same pass. Null is not computed.
struct Forward {
  int64_t value_dim = 0;             // E; 0 with a null output: statistics alone
  Strided<const void> value;         // (B,G,K,E), or of H heads
  int64_t value_heads = 0;           // G or H: one matrix for each group, or for each query head
  Strided<void> output;              // (B,H,Q,E)
  Type output_type = Type::float32;  // the scores' type, or float32
  double* lse = nullptr;             // (B,H,Q)
  float* entropy = nullptr;          // (B,H,Q), in nats
  float* distance = nullptr;         // (B,H,Q), Σ_j w_ij |i − j|, with i counted from first_position
  int64_t first_position = 0;
  float* max_score = nullptr;   // (B,H,Q), the largest s_ij; −∞ where a row sees nothing
  int64_t top = 0;              // k: at most largest_top and K
  float* top_values = nullptr;  // (B,H,Q,k), sorted, ties to the lower key
  int64_t* top_keys = nullptr;  // (B,H,Q,k)
  // (B,H,Q), that of the largest weights where it is known: another way here may have found other last digits.
  const double* known_lse = nullptr;
};

enum class Rectifier : int32_t { none, relu, absolute };

// φ(a_i·b_j); or φ(a_i) or φ(b_j) alone, of width 1, where the other is null.
struct Factor {
  int64_t width = 1;           // F
  Strided<const float> query;  // a (B,H,Q,F)
  Strided<const float> key;    // b (B,H / key_repeat,K,F)
  int64_t key_repeat = 1;      // query heads that share one b
  Rectifier rectifier = Rectifier::none;
};

// A map, as a rule. With a Gram matrix for each key it has a single head, as its factors then have.
struct Map {
  const double* lse = nullptr;  // (B,H,Q)
  const Factor* factors = nullptr;
  int64_t count = 0;          // of the factors
  Strided<const float> gram;  // G (B,K,H·H), its row the key; null where heads are not combined
};

// The numbers of a map gathered into cells: M_ij goes to cell (row_cells[i], column_cells[j]); −1 is left out.
struct Pool {
  const int64_t* row_cells = nullptr;     // (Q)
  const int64_t* column_cells = nullptr;  // (K)
  int64_t rows = 0, columns = 0;
  bool largest = false;     // the largest number of a cell, not their sum
  double* cells = nullptr;  // (B,H,rows,columns); 0 where nothing goes
};

// Part of a map itself: rows first_row … + rows, columns first_column … + columns, of all heads.
struct Tile {
  int64_t first_row = 0, rows = 0, first_column = 0, columns = 0;
  float* numbers = nullptr;  // (B,H,rows,columns)
};

// M[first_row + i, first_column + i] for i < count, of all heads.
struct Diagonal {
  int64_t first_row = 0, first_column = 0, count = 0;
  float* numbers = nullptr;  // (B,H,count)
};

// M x for float32 x: (B,H / repeat,K,F) to (B,H,Q,F).
struct Apply {
  int64_t width = 0;             // F
  Strided<const float> vectors;  // (B,H / repeat,K,F)
  int64_t repeat = 1;            // query heads that share one x
  float* output = nullptr;       // (B,H,Q,F)
};

// Mᵀ y for float32 y: (B,H,Q,F) to (B,H,K,F), both by query head.
struct Transposed {
  int64_t width = 0;             // F
  Strided<const float> vectors;  // (B,H,Q,F)
  float* output = nullptr;       // (B,H,K,F)
};

// The largest numbers of each row of a map, and their keys; those of the keys that a row may not see are 0.
struct Largest {
  int64_t count = 0;        // k: at most largest_top and K
  bool magnitude = false;   // by their sizes; the numbers keep their signs
  float* values = nullptr;  // (B,H,Q,k), sorted, ties to the lower key
  int64_t* keys = nullptr;  // (B,H,Q,k)
};

// Gradients, of which that of the bias is added to what is there. delta_i = Σ_e grad_ie output_ie − grad_lse_i.
struct Backward {
  const double* lse = nullptr;                     // (B,H,Q)
  int64_t value_dim = 0;                           // E
  Strided<const void> value;                       // (B,G,K,E)
  Strided<const void> output, grad_output;         // (B,H,Q,E), of the scores' type
  const double* grad_lse = nullptr;                // (B,H,Q); null: 0
  float* delta = nullptr;                          // (B,H,Q), written where it is wanted
  Type grad_type = Type::float32;                  // of the next three: the scores' type, or float32
  Strided<void> grad_query, grad_key, grad_value;  // (B,H,Q,D), (B,G,K,D), (B,G,K,E)
  Broadcast<float> grad_bias;  // of the bias's shape, strides of 0 where it was broadcast; null: not wanted
};

enum class Activation : int32_t { none, gelu, gelu_tanh, relu };

// A matrix whose rows' numbers lie side by side.
template <class T>
struct Rows {
  T* data = nullptr;
  int64_t row = 0;  // the stride
};

// y = norm(activation(x Wᵀ + bias) + residual), of vectors each on its own. Null is left out.
struct Linear {
  Type type = Type::float32;  // of x, W, residual and y
  int64_t rows = 0, inputs = 0, outputs = 0;
  Rows<const void> x;             // (rows,inputs)
  const float* weight = nullptr;  // W (outputs,inputs), as pack_linear leaves it
  const float* bias = nullptr;    // (outputs)
  Activation activation = Activation::none;
  Rows<const void> residual;                      // (rows,outputs)
  const float *gain = nullptr, *shift = nullptr;  // of the norm, (outputs)
  float epsilon = 0;
  float* sums = nullptr;  // (rows,outputs), to work in, where a norm follows and the type is not float32
  Rows<void> output;      // (rows,outputs)
};

// W of a `Linear` in whole numbers, w_oi = scale_o · q_oi with −127 ≤ q_oi ≤ 127. What comes in is rounded row by row
// to x_i = step · (q_i − zero) with 0 ≤ q_i ≤ 255, so that
//
//     Σ_i x_i w_oi = step · scale_o · (Σ_i q_i q_oi − zero · Σ_i q_oi)
//
// where the sums of whole numbers are exact.
struct Quantized {
  const void* weight = nullptr;                      // q, as pack_quantized leaves it
  const float *scales = nullptr, *totals = nullptr;  // (outputs): scale_o and Σ_i q_oi
  const float* factors = nullptr;                    // (inputs), of x before it is rounded; null: 1
};

// So many that a sum stays below 2^31.
constexpr int64_t largest_quantized_inputs = 65536;

// W and the bias of x Wᵀ + bias, as they lie in a model; the bias may be null.
struct Projection {
  const float *weight = nullptr, *bias = nullptr;
  bool by_input = false;  // W lies as (inputs,outputs), not as (outputs,inputs)
  int64_t step = 0;       // from row to row
};

// Of a root mean square norm; of a layer norm, which subtracts the mean, where there is a shift.
struct Norm {
  const float *gain = nullptr, *shift = nullptr;
};

// A layer of a decoder, for the state of one token, in float32:
//
//     state += output(attention(norm(state)))      state += down(gelu_tanh(up(norm(state))))
//
// or, with a gate, down(silu(gate(…)) · up(…)). With angles, queries and keys are turned by them.
struct TokenLayer {
  int64_t dim = 0, heads = 0, groups = 0, head_dim = 0, hidden = 0;
  Norm input_norm, norm;
  float epsilon = 0;
  Projection query, key, value, output;            // of the attention
  Projection gate, up, down;                       // of the feed-forward network; the gate may be null
  const float *cosine = nullptr, *sine = nullptr;  // (head_dim), of its position, or null
  float scale = 1;
  // The keys and values of all tokens, (1,groups,keys,head_dim). Those of the token, the last, are written.
  int64_t keys = 0;
  Strided<float> all_keys, all_values;
  float* queries = nullptr;   // (heads·head_dim): its queries, where they are wanted
  double* lse = nullptr;      // (heads), likewise
  float* attended = nullptr;  // (heads·head_dim): what its queries took, likewise
  float* state = nullptr;     // (dim): becomes the state after the layer
};

// One instruction set's kernel. Every function gives the same bits whatever the number of threads.
struct Kernel {
  const char* name;
  void (*forward)(const Scores&, const Forward&, int threads);
  void (*pool)(const Scores&, const Map&, const Pool&, int threads);
  void (*tile)(const Scores&, const Map&, const Tile&, int threads);
  void (*diagonal)(const Scores&, const Map&, const Diagonal&, int threads);
  void (*apply)(const Scores&, const Map&, const Apply&, int threads);
  void (*transposed)(const Scores&, const Map&, const Transposed&, int threads);
  void (*largest)(const Scores&, const Map&, const Largest&, int threads);
  void (*backward)(const Scores&, const Backward&, int threads);
  void (*linear)(const Linear&, int threads);
  // In float32, but for the product with W. A row with a number that is not finite gives nan.
  void (*quantized)(const Linear&, const Quantized&, int threads);
  void (*token)(const TokenLayer&, int threads);
  // W (outputs,inputs) of a type as `linear` reads it, in linear_size() floats.
  void (*pack_linear)(Type, int64_t outputs, int64_t inputs, const void* weight, float* to);
  int64_t (*linear_size)(Type, int64_t outputs, int64_t inputs);
  // The same for q (outputs,inputs) as `quantized` reads it, in quantized_size() bytes.
  void (*pack_quantized)(int64_t outputs, int64_t inputs, const int8_t* weight, void* to);
  int64_t (*quantized_size)(int64_t outputs, int64_t inputs);
  // Ceilings of the machine: multiply-adds in registers for a type, and reading memory; per second, of all threads.
  double (*flops)(Type, int threads);
  double (*bytes)(int threads);
};

// Those that this machine can run, the best first; at least "portable". names[count] follows the last one.
const Kernel* const* kernels();

// The kernel of that name; the best if null; null where the machine lacks it.
const Kernel* kernel(const char* name);

}  // namespace regard
