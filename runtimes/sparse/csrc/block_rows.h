// A weight kept block by block, and its product with one token: what the portable kernels are made of.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "sparse_weight.h"

namespace stepdown {

// Calls visit(column of blocks, values of the block) for each entry of a row of blocks, from left to right.
template <class T, class Visit>
void visit_entries(const SparseWeight<T>& weight, int64_t block_row, const Visit& visit) {
    int64_t column = -1;
    for (int64_t entry = weight.row_starts[block_row]; entry < weight.row_starts[block_row + 1]; ++entry) {
        column += 1 + int64_t{weight.gaps[entry]};
        visit(column, weight.values + entry * weight.shape.block_size());
    }
}

constexpr int32_t max_block_out = 16;

template <class T>
class BlockRows {
public:
    explicit BlockRows(const SparseWeight<T>& weight)
        : shape_(weight.shape),
          starts_(weight.row_starts, weight.row_starts + weight.shape.block_rows() + 1),
          values_(weight.values, weight.values + weight.entries * weight.shape.block_size()) {
        columns_.reserve(static_cast<size_t>(weight.entries));
        for (int64_t row = 0; row < shape_.block_rows(); ++row) {
            visit_entries(weight, row,
                          [this](int64_t column, const T*) { columns_.push_back(static_cast<int32_t>(column)); });
        }
    }

    const Shape& shape() const { return shape_; }
    // How many of the outputs of a row of blocks there are: fewer than block_out at the edge.
    int64_t height(int64_t block_row) const {
        return std::min<int64_t>(shape_.block_out, shape_.out - block_row * shape_.block_out);
    }

    // Add the products of a row of blocks with x [in] to sums [max_block_out], columns in rising order. Up to four rows
    // of a block that are zeros are skipped, as vector kernels skip them: infinity times zero would tell.
    template <class X, class Sum>
    void multiply(const X* x, int64_t block_row, Sum* sums) const {
        for (int32_t entry = starts_[block_row]; entry < starts_[block_row + 1]; ++entry) {
            const int64_t first = int64_t{columns_[entry]} * shape_.block_in;
            const int64_t width = std::min<int64_t>(shape_.block_in, shape_.in - first);
            const T* block = values_.data() + entry * shape_.block_size();
            const int32_t height = std::min(shape_.block_out, 4), part = height * shape_.block_in;
            for (int32_t row = 0; row < shape_.block_out; ++row) {
                const T* const top = block + row / height * part;
                if (std::all_of(top, top + part, [](T value) { return value == 0; })) continue;
                for (int64_t column = 0; column < width; ++column) {
                    sums[row] += Sum(block[row * shape_.block_in + column]) * Sum(x[first + column]);
                }
            }
        }
    }

private:
    Shape shape_;
    std::vector<int32_t> starts_;
    std::vector<T> values_;
    std::vector<int32_t> columns_;
};

}  // namespace stepdown
