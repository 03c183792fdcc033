// An INT8 layer as the vector kernels read it, and what a kernel is. Plain pointers: sources for one ISA include no
// containers, whose inline functions the linker could hand to a CPU without that ISA.
//
// A *unit* is 4 bytes of one token's quantised activations: 4 columns as uint8 (quad), 2 as int16 (pair) or 1 as
// float32 (single), whatever the multiply-add of the ISA takes. Weights have the same form, with int8 in a quad. A
// *group* is 1 or 4 neighbouring outputs that are summed together. A *strip* is 32 outputs: what is summed before
// anything is written. A *slab* is a range of columns whose activations stay in the L1 cache.
// A *panel* is some tokens, quantised: [unit][token], each token's step, each token's zero point.
#pragma once

#include <cstdint>

#include "masked_rows.h"
#include "sparse_weight.h"

namespace stepdown {

constexpr int64_t strip_rows = 32;

enum class Unit { quad, pair, single };

constexpr int64_t unit_columns(Unit unit) { return unit == Unit::quad ? 4 : unit == Unit::pair ? 2 : 1; }

struct Int8Layer {
    int64_t out, in;
    Activation activation;
    int64_t units;         // of all columns
    int64_t padded_units;  // of a panel: units, rounded up to whole vectors
    int64_t slab_units;    // of a slab; the last may have fewer
    int64_t slabs;
    int64_t list_rows;  // outputs that share a list: those of a group, or of a block row where columns are gathered
    // One for each output, padded with zeros to whole strips.
    const float* scales;
    const float* bias;
    const int32_t* sums;  // of the values of the row, split
    // Streams, in the order [strip][slab][list].
    const uint16_t* counts;  // entries of each list
    const uint16_t* places;  // of each entry: its unit in the slab; where columns are gathered, the 4 columns of a quad
    const uint32_t* weights;  // of each entry: one unit for each output of the group
    // Where a strip begins in each stream.
    const int64_t* counts_start;
    const int64_t* places_start;
    const int64_t* weights_start;
};

// The kernel of one ISA and pattern. A panel of n tokens is as wide as n rounded up to whole vectors, at most
// panel_vectors.
struct Int8Kernel {
    Unit unit;
    int32_t group_rows;
    bool gathers;  // lists name single columns; quads are put together while running
    int64_t slab_columns;
    int64_t vector_tokens;
    int64_t panel_vectors;
    // x [tokens][in] -> panel
    void (*quantise)(const Int8Layer&, const float* x, int64_t tokens, char* panel);
    // panel -> y [tokens][out], the outputs of one strip
    void (*multiply)(const Int8Layer&, const char* panel, int64_t tokens, int64_t strip, float* y);
    // The same for a panel of one token and a layer in rows with masks; null where there is none.
    void (*multiply_masked)(const Int8Layer&, const MaskedRows<int8_t>&, const char* panel, int64_t strip, float* y);
};

// A sum of values times a zero point, by one multiplication of pairs of int16: of 7 bits and of the rest.
constexpr int64_t widest_split = int64_t{1} << 15;  // columns, of 128 at most, whose sum can be split
constexpr int32_t split_sum(int32_t sum) { return (sum & 127) | (sum >> 7) * 65536; }
constexpr int32_t split_zero_point(int32_t zero_point) { return zero_point | zero_point << 23; }

// Bytes of a panel of so many tokens, a multiple of 64: units, steps, zero points.
constexpr int64_t int8_panel_bytes(const Int8Layer& layer, int64_t tokens) {
    return (layer.padded_units + 2) * tokens * 4;
}

// Where the steps and, after them, the zero points of a panel begin.
template <class Byte>
Byte* panel_tail(const Int8Layer& layer, Byte* panel, int64_t width) {
    return panel + layer.padded_units * width * 4;
}

}  // namespace stepdown
