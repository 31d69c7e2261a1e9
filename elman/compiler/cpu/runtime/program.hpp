// What runs at every step, as the Python side hands it over. Sizes are in elements.
//
// Each struct is declared in elman/compiler/cpu/layouts.py, too, with the same fields in the same order,
// of eight bytes each; where they differ, the runtime does not compile.
#pragma once
#include "vector.hpp"

namespace elman {

// A state that goes from step to step.
struct State {
  real* first;       // (B, width) before the first step
  real* again;       // (B, width) after a reset, or null
  real* history;     // after each step: (slots, B, width)
  real* present;     // (B, width) scratch: the state before the present step, where it is changed
  real* last;        // (B, width) out: after the last step, or null
  const real* added; // (T, B, width) added after each step, or null: gradients of outputs
  real* again_out;   // (B, width) what a reset takes from the state, summed; or null
  long width;
  long slots;        // T, or 2 where only the present step is needed
  long past;         // a state of the forward pass, seen from the backward pass: only read
};

enum Place { kFixed = 0, kBefore = 1, kAfter = 2 };

// Rows in memory: row b of step t is at data + t * step + b * row.
struct Buffer {
  real* data;
  long step;
  long row;
  long width;
  long place;   // kFixed, or of which state it is the value before or after the step
  long state;
  long zeroed;  // rows past their end are set to zero: they are read after the loop
};

// What fills a buffer: another times a matrix, whose element (k, c) is at k * down + c * across.
struct Product {
  long source, target;
  long depth, columns;
  const real* matrix;
  long down, across;
  real* packed;  // room for the matrix as the loop reads it; or null: as it lies, where down is 1
};

using Pointwise = void (*)(real* const*, long, long);

struct Function {
  Pointwise run;
  long width;
  long whole_rows;  // it reduces rows
  long slots;
  const long* buffers;
  const long* offsets;
};

struct Stage {
  long first_product, products;
  long first_function, functions;
};

struct Program {
  long steps, batch, threads;
  long reverse;   // from the last step to the first
  long backward;  // the gradient: of rows past their end, it passes by
  const unsigned char* resets;  // (T, B): the state before this step is its start; or null
  const long* lengths;          // (B) or null
  State* states;
  long state_count;
  Buffer* buffers;
  long buffer_count;
  const Product* products;
  long product_count;
  const Function* functions;
  const Stage* stages;
  long stage_count;
  long team;  // threads that share rows, with a barrier a stage; 1: each has rows of its own
};

// Memory that something was computed from, and what it held then.
struct Kept {
  const void* now;
  const void* then;
  long bytes;
};

// A state of all layers, (layers, B, width).
struct StackState {
  real* before;
  real* after;  // out
};

// One step of layers of which each reads what the one before it wrote. All have states of the same
// widths.
struct Stack {
  Program* const* layers;
  const long* inputs;  // which buffer of each layer is its input, or -1
  long layer_count, threads;
  const StackState* states;
  long state_count;
  const Kept* kept;
  long kept_count;
  real* x;  // (B, M)
  real* y;  // (B, S) out: the last layer's first state

  bool stale() const {
    for (long i = 0; i < kept_count; ++i)
      if (std::memcmp(kept[i].now, kept[i].then, kept[i].bytes)) return true;
    return false;
  }

  void connect() const {
    for (long i = 0; i < layer_count; ++i) {
      Program& p = *layers[i];
      if (inputs[i] >= 0) p.buffers[inputs[i]].data = i ? layers[i - 1]->states[0].history : x;
      for (long s = 0; s < state_count; ++s) {
        const long offset = i * p.batch * p.states[s].width;
        p.states[s].first = states[s].before + offset;
        p.states[s].history = states[s].after + offset;
      }
    }
    layers[layer_count - 1]->states[0].last = y;
  }
};

}  // namespace elman
