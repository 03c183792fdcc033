#include "int8_pack.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "block_rows.h"

namespace stepdown {
namespace {

constexpr int64_t round_up(int64_t number, int64_t step) { return (number + step - 1) / step * step; }

// The weights of one output at some columns, as a unit.
uint32_t make_unit(Unit unit, const int8_t* values) {
    uint32_t word = 0;
    if (unit == Unit::quad) {
        std::memcpy(&word, values, sizeof word);
    } else if (unit == Unit::pair) {
        const int16_t wide[2] = {values[0], values[1]};
        std::memcpy(&word, wide, sizeof word);
    } else {
        const float wide = values[0];
        std::memcpy(&word, &wide, sizeof word);
    }
    return word;
}

}  // namespace

// One strip of a weight, dense: [strip_rows][padded in], zeros where there is nothing.
class Int8Strip {
public:
    explicit Int8Strip(const SparseWeight<int8_t>& weight)
        : weight_(weight), padded_in_(round_up(weight.shape.in, 4)), values_(strip_rows * padded_in_) {}

    void read(int64_t strip) {
        std::fill(values_.begin(), values_.end(), int8_t{0});
        const Shape& shape = weight_.shape;
        const int64_t first_row = strip * strip_rows, last_row = std::min(first_row + strip_rows, shape.out);
        for (int64_t row = first_row; row < last_row; row += shape.block_out) {
            visit_entries(weight_, row / shape.block_out, [&](int64_t block_column, const int8_t* block) {
                const int64_t column = block_column * shape.block_in;
                const int64_t width = std::min<int64_t>(shape.block_in, shape.in - column);
                for (int64_t i = 0; i < std::min<int64_t>(shape.block_out, last_row - row); ++i) {
                    std::memcpy(at(row - first_row + i, column), block + i * shape.block_in, width);
                }
            });
        }
    }

    int8_t* at(int64_t row, int64_t column) { return values_.data() + row * padded_in_ + column; }
    const int8_t* at(int64_t row, int64_t column) const { return values_.data() + row * padded_in_ + column; }
    bool has_value(int64_t row, int64_t rows, int64_t column, int64_t width) const {
        for (int64_t i = row; i < row + rows; ++i) {
            for (int64_t j = 0; j < width; ++j) {
                if (*at(i, column + j) != 0) return true;
            }
        }
        return false;
    }

private:
    const SparseWeight<int8_t>& weight_;
    int64_t padded_in_;
    std::vector<int8_t> values_;
};

PackedInt8::PackedInt8(const SparseWeight<int8_t>& weight, const float* scales, const float* bias,
                       Activation activation, const Int8Kernel& kernel)
    : shape_(weight.shape),
      activation_(activation),
      kernel_(kernel),
      list_rows_(kernel.gathers ? shape_.block_out : kernel.group_rows) {
    const int64_t rows = round_up(shape_.out, strip_rows);
    scales_.assign(scales, scales + shape_.out);
    scales_.resize(rows);
    bias_.assign(bias, bias + shape_.out);
    bias_.resize(rows);
    Int8Strip strip(weight);
    close_strip();
    for (int64_t at = 0; at * strip_rows < shape_.out; ++at) {
        strip.read(at);
        for (int64_t row = 0; row < strip_rows; ++row) {
            sums_.push_back(split_sum(std::accumulate(strip.at(row, 0), strip.at(row, shape_.in), int32_t{0})));
        }
        for (int64_t first = 0; first < shape_.in; first += kernel_.slab_columns) {
            const int64_t last = std::min(first + kernel_.slab_columns, shape_.in);
            for (int64_t row = 0; row < strip_rows; row += list_rows_) {
                append(kernel_.gathers ? gather_columns(strip, row, first, last) : list_units(strip, row, first, last));
            }
        }
        close_strip();
    }
    places_.resize(places_.size() + 8);  // read, not used, past the end
}

// Columns of one unit become one entry.
PackedInt8::Entries PackedInt8::list_units(const Int8Strip& strip, int64_t row, int64_t first_column,
                                           int64_t last_column) const {
    const int64_t width = unit_columns(kernel_.unit);
    Entries entries;
    for (int64_t column = first_column; column < last_column; column += width) {
        if (!strip.has_value(row, list_rows_, column, width)) continue;
        entries.places.push_back(static_cast<uint16_t>((column - first_column) / width));
        for (int64_t i = row; i < row + list_rows_; ++i) {
            entries.words.push_back(make_unit(kernel_.unit, strip.at(i, column)));
        }
    }
    return entries;
}

// Each four columns become one entry, wherever they are; what the last one lacks is a column again, without weight.
PackedInt8::Entries PackedInt8::gather_columns(const Int8Strip& strip, int64_t row, int64_t first_column,
                                               int64_t last_column) const {
    Entries entries;
    for (int64_t column = first_column; column < last_column; ++column) {
        if (strip.has_value(row, list_rows_, column, 1)) {
            entries.places.push_back(static_cast<uint16_t>(column - first_column));
        }
    }
    const size_t columns = entries.places.size();
    entries.places.resize(round_up(columns, 4), columns == 0 ? uint16_t{0} : entries.places.back());
    for (size_t first = 0; first < columns; first += 4) {
        for (int64_t i = row; i < row + list_rows_; ++i) {
            int8_t values[4] = {};
            for (size_t j = 0; j < std::min<size_t>(4, columns - first); ++j) {
                values[j] = *strip.at(i, first_column + entries.places[first + j]);
            }
            entries.words.push_back(make_unit(Unit::quad, values));
        }
    }
    return entries;
}

void PackedInt8::append(const Entries& entries) {
    const int64_t count = entries.words.size() / list_rows_;
    counts_.push_back(static_cast<uint16_t>(count));
    places_.insert(places_.end(), entries.places.begin(), entries.places.end());
    for (int64_t group = 0; group < list_rows_; group += kernel_.group_rows) {
        for (int64_t entry = 0; entry < count; ++entry) {
            const auto word = entries.words.begin() + entry * list_rows_ + group;
            weights_.insert(weights_.end(), word, word + kernel_.group_rows);
        }
    }
}

void PackedInt8::close_strip() {
    counts_start_.push_back(counts_.size());
    places_start_.push_back(places_.size());
    weights_start_.push_back(weights_.size());
}

Int8Layer PackedInt8::layer() const {
    const int64_t width = unit_columns(kernel_.unit);
    Int8Layer layer{};
    layer.out = shape_.out;
    layer.in = shape_.in;
    layer.activation = activation_;
    layer.units = (shape_.in + width - 1) / width;
    layer.padded_units = round_up(layer.units, kernel_.vector_tokens);
    layer.slab_units = kernel_.slab_columns / width;
    layer.slabs = (shape_.in + kernel_.slab_columns - 1) / kernel_.slab_columns;
    layer.list_rows = list_rows_;
    layer.scales = scales_.data();
    layer.bias = bias_.data();
    layer.sums = sums_.data();
    layer.counts = counts_.data();
    layer.places = places_.data();
    layer.weights = weights_.data();
    layer.counts_start = counts_start_.data();
    layer.places_start = places_start_.data();
    layer.weights_start = weights_start_.data();
    return layer;
}

int64_t count_int8_entries(const SparseWeight<int8_t>& weight, Unit unit, int64_t rows) {
    Int8Strip strip(weight);
    int64_t count = 0;
    for (int64_t at = 0; at * strip_rows < weight.shape.out; ++at) {
        strip.read(at);
        for (int64_t row = 0; row < strip_rows; row += rows) {
            for (int64_t column = 0; column < weight.shape.in; column += unit_columns(unit)) {
                count += strip.has_value(row, rows, column, unit_columns(unit));
            }
        }
    }
    return count;
}

}  // namespace stepdown
