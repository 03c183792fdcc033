// How the FP32 vector kernels want a weight: cut into tiles, each tile into groups of four rows of outputs.
//
// In: a checked weight. Out: a FloatWeight, plain pointers, so that the sources of an instruction set use no library
// code that the linker could share with sources of another.
#pragma once

#include <cstdint>
#include <vector>

#include "sparse_weight.h"

namespace stepdown {

constexpr int32_t group_rows = 4;
// A chunk's rows are stored in sixteens (as many as a vector has lanes at most), and so are its sums.
constexpr int32_t chunk_row_unit = 16;

constexpr int64_t round_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

// What takes part in a product at once, found from the shape of a block. Blocks of other shapes are cut into these.
struct FloatPattern {
    bool shared;    // the four rows of a group have the same columns (block_out is a multiple of 4)
    int32_t width;  // columns side by side: 4 where block_in is a multiple of 4, else 1
};

// Four rows of a chunk. A step of it is one column (width of them side by side) for each row:
//   shared: values [width][4], columns [1]; else: values [4][width], columns [4].
// Rows are sorted by length, so that a group's are about as long: what is missing has the column `depth`, where a
// panel holds zeros. A group at the end of a chunk may name rows past the chunk's.
struct FloatGroup {
    int32_t steps;
    uint16_t rows[group_rows];
};

// The rows of a chunk in `depth` columns of inputs; a column counts from the tile's first.
struct FloatTile {
    const FloatGroup* groups;
    int64_t group_count;
    const float* values;
    const uint8_t* columns;
};

// Rows whose sums stay in the cache while the tiles go by. The first tile names every row.
struct FloatChunk {
    int64_t first_row, rows;
    const float* bias;  // of round_up(rows, chunk_row_unit) rows
    const FloatTile* tiles;
};

struct FloatWeight {
    Shape shape;
    FloatPattern pattern;
    int32_t depth;
    int64_t tiles;  // of each chunk
    const FloatChunk* chunks;
    int64_t chunk_count;
    int64_t steps;  // in all groups: what the work is measured in
};

class PackedFloat {
public:
    // depth: inputs of a tile, a multiple of 4 below 252.
    PackedFloat(const SparseWeight<float>& weight, const float* bias, int32_t depth);
    PackedFloat(const PackedFloat&) = delete;
    PackedFloat& operator=(const PackedFloat&) = delete;

    const FloatWeight& view() const { return view_; }

private:
    friend class FloatPacker;

    std::vector<float> values_, bias_;
    std::vector<uint8_t> columns_;
    std::vector<FloatGroup> groups_;
    std::vector<FloatTile> tiles_;
    std::vector<FloatChunk> chunks_;
    FloatWeight view_;
};

FloatPattern find_float_pattern(const Shape& shape);

}  // namespace stepdown
