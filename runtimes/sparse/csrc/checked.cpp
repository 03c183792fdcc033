#include "checked.h"

#include <cmath>
#include <stdexcept>
#include <type_traits>

namespace stepdown {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument(what); }

std::string text(int64_t number) { return std::to_string(number); }

std::string text(int64_t high, int64_t wide) { return text(high) + "x" + text(wide); }

void check_feature_count(const char* name, int64_t found, int64_t most) {
    if (found < 1 || found > most) refuse(std::string(name) + " is " + text(found) + "; expected 1 to " + text(most));
}

void check_size(const char* name, int64_t found, int64_t expected, const std::string& why) {
    if (found == expected) return;
    refuse(std::string(name) + " holds " + text(found) + " numbers; expected " + text(expected) + ", " + why);
}

void check_row_starts(const Shape& shape, Span<int32_t> row_starts, int64_t entries) {
    const int64_t rows = shape.block_rows();
    check_size("row_starts", row_starts.size, rows + 1, "one for each row of blocks and the end");
    if (row_starts.data[0] != 0) refuse("row_starts begins with " + text(row_starts.data[0]) + "; expected 0");
    for (int64_t row = 0; row < rows; ++row) {
        if (row_starts.data[row + 1] >= row_starts.data[row]) continue;
        refuse("row_starts falls from " + text(row_starts.data[row]) + " to " + text(row_starts.data[row + 1]) +
               " after row " + text(row) + "; expected no fall");
    }
    if (row_starts.data[rows] == entries) return;
    refuse("row_starts ends with " + text(row_starts.data[rows]) + "; expected " + text(entries) +
           ", the number of gaps");
}

// Whether all that lies past the edge of the weight is zero: a kernel may multiply it with anything.
template <class T>
bool is_zero_past_edge(const Shape& shape, const T* block, int64_t rows, int64_t columns) {
    for (int64_t row = 0; row < shape.block_out; ++row) {
        for (int64_t column = row < rows ? columns : 0; column < shape.block_in; ++column) {
            if (block[row * shape.block_in + column] != 0) return false;
        }
    }
    return true;
}

template <class T>
void check_block_row(const SparseWeight<T>& weight, int64_t row) {
    const Shape& shape = weight.shape;
    const int64_t rows = shape.out - row * shape.block_out;
    int64_t column = -1;
    for (int64_t entry = weight.row_starts[row]; entry < weight.row_starts[row + 1]; ++entry) {
        column += 1 + int64_t{weight.gaps[entry]};
        if (column >= shape.block_columns()) {
            refuse("gaps leads to column " + text(column) + " of blocks in row " + text(row) + "; expected less than " +
                   text(shape.block_columns()));
        }
        const int64_t columns = shape.in - column * shape.block_in;
        if (rows >= shape.block_out && columns >= shape.block_in) continue;
        if (is_zero_past_edge(shape, weight.values + entry * shape.block_size(), rows, columns)) continue;
        refuse("values is not 0 past the edge of the weight, in row " + text(row) + " and column " + text(column) +
               " of blocks; expected 0");
    }
}

void check_finite(const char* name, Span<float> numbers) {
    for (int64_t at = 0; at < numbers.size; ++at) {
        if (std::isfinite(numbers.data[at])) continue;
        refuse(std::string(name) + " is not finite at " + text(at) + "; expected a finite number");
    }
}

bool is_empty_row(const SparseWeight<int8_t>& weight, int64_t row) {
    const Shape& shape = weight.shape;
    const int64_t block_row = row / shape.block_out, inside = row % shape.block_out;
    for (int64_t entry = weight.row_starts[block_row]; entry < weight.row_starts[block_row + 1]; ++entry) {
        const int8_t* values = weight.values + entry * shape.block_size() + inside * shape.block_in;
        for (int64_t column = 0; column < shape.block_in; ++column) {
            if (values[column] != 0) return false;
        }
    }
    return true;
}

}  // namespace

Activation check_activation(const std::string& name) {
    if (name == "none") return Activation::none;
    if (name == "relu") return Activation::relu;
    if (name == "gelu") return Activation::gelu;
    if (name == "gelu_tanh") return Activation::gelu_tanh;
    if (name == "silu") return Activation::silu;
    refuse("activation is '" + name.substr(0, 32) + "'; expected none, relu, gelu, gelu_tanh or silu");
}

Shape check_shape(const Claims& claims) {
    check_feature_count("out_features", claims.out_features, max_features);
    check_feature_count("in_features", claims.in_features, max_features);
    const int64_t weights = claims.out_features * claims.in_features;
    if (weights > max_weights) {
        refuse("out_features * in_features is " + text(weights) + "; expected at most " + text(max_weights));
    }
    constexpr int32_t blocks[][2] = {{1, 1}, {4, 1}, {8, 1}, {16, 1}, {1, 4}, {4, 4}, {16, 4}};
    for (const auto& [high, wide] : blocks) {
        if (claims.block_out != high || claims.block_in != wide) continue;
        return {claims.out_features, claims.in_features, high, wide};
    }
    refuse("block is " + text(claims.block_out, claims.block_in) +
           "; expected 1x1, 4x1, 8x1, 16x1, 1x4, 4x4 or 16x4 (block_out x block_in)");
}

void check_int8_shape(const Shape& shape) { check_feature_count("in_features", shape.in, max_int8_in_features); }

template <class T>
SparseWeight<T> check_weight(const Shape& shape, Span<T> values, Span<uint8_t> gaps, Span<int32_t> row_starts) {
    const int64_t entries = gaps.size;
    if (entries > INT32_MAX) refuse("gaps holds " + text(entries) + " numbers; expected at most " + text(INT32_MAX));
    const std::string block = text(shape.block_out, shape.block_in);
    check_size("values", values.size, entries * shape.block_size(), "a block of " + block + " for each gap");
    check_row_starts(shape, row_starts, entries);
    const SparseWeight<T> weight{shape, entries, values.data, gaps.data, row_starts.data};
    for (int64_t row = 0; row < shape.block_rows(); ++row) check_block_row(weight, row);
    if constexpr (std::is_same_v<T, float>) check_finite("values", values);
    return weight;
}

template SparseWeight<float> check_weight(const Shape&, Span<float>, Span<uint8_t>, Span<int32_t>);
template SparseWeight<int8_t> check_weight(const Shape&, Span<int8_t>, Span<uint8_t>, Span<int32_t>);

void check_bias(const Shape& shape, Span<float> bias) {
    check_size("bias", bias.size, shape.out, "one for each output");
    check_finite("bias", bias);
}

void check_norm(const Shape& shape, Span<float> scale, Span<float> bias, float epsilon) {
    check_size("norm_scale", scale.size, shape.out, "one for each output");
    check_finite("norm_scale", scale);
    check_size("norm_bias", bias.size, shape.out, "one for each output");
    check_finite("norm_bias", bias);
    if (!(epsilon > 0) || !std::isfinite(epsilon)) refuse("epsilon is not a finite number above 0; expected one");
}

void check_scales(const SparseWeight<int8_t>& weight, Span<float> scales) {
    check_size("scales", scales.size, weight.shape.out, "one for each output");
    check_finite("scales", scales);
    for (int64_t row = 0; row < scales.size; ++row) {
        const float scale = scales.data[row];
        if (scale > 0 || (scale == 0 && is_empty_row(weight, row))) continue;
        refuse("scales is " + std::to_string(scale) + " at " + text(row) +
               "; expected more than 0, or 0 where the row holds no value");
    }
}

}  // namespace stepdown
