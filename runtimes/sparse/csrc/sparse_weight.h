// A block-sparse weight as an artifact stores it, after every number in it was checked (checked.cpp).
//
// The memory belongs to the caller and lives only while a kernel is being packed.
#pragma once

#include <cstdint>

namespace stepdown {

enum class Activation { none, relu, gelu, gelu_tanh, silu };

// W[out, in] in blocks of block_out x block_in; the rest of a block at an edge is zeros.
struct Shape {
    int64_t out, in;
    int32_t block_out, block_in;

    int64_t block_rows() const { return (out + block_out - 1) / block_out; }
    int64_t block_columns() const { return (in + block_in - 1) / block_in; }
    int64_t block_size() const { return int64_t{block_out} * block_in; }
};

// values: entries * block_size, row-major [block_out][block_in] inside a block.
// gaps: the block column of an entry is that of the entry before it in its block row + 1 + gap, from -1 on.
// row_starts: entries of block row r are row_starts[r] .. row_starts[r + 1]; block_rows + 1 of them.
template <class T>
struct SparseWeight {
    Shape shape;
    int64_t entries;
    const T* values;
    const uint8_t* gaps;
    const int32_t* row_starts;
};

}  // namespace stepdown
