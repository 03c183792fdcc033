// The arrays of an operator, checked: a model file is input from outside, and no kernel looks at them again.
//
// In: what a node says and the initializers it names, with their lengths. Out: a SparseWeight whose every index is in
// bounds. Throws std::invalid_argument that says what was found and what was expected. Knows nothing of ONNX Runtime.
#pragma once

#include <cstdint>
#include <string>

#include "sparse_weight.h"

namespace stepdown {

template <class T>
struct Span {
    const T* data;
    int64_t size;
};

// The largest layer. No model has one near it, and every product of these fits 64 bits.
constexpr int64_t max_features = int64_t{1} << 24;
// Packing walks over rows and tiles of columns, stored or not: a file of some KiB must not claim work for minutes. The
// dense weight would take 16 GiB.
constexpr int64_t max_weights = int64_t{1} << 32;
// A sum of this many products of 8 bits, 255 * -128 each, still fits 32 bits.
constexpr int64_t max_int8_in_features = int64_t{1} << 16;

// Attributes as they stand in the node.
struct Claims {
    int64_t out_features, in_features, block_out, block_in;
};

Activation check_activation(const std::string& name);
Shape check_shape(const Claims&);
void check_int8_shape(const Shape&);

// T: float or int8_t.
template <class T>
SparseWeight<T> check_weight(const Shape&, Span<T> values, Span<uint8_t> gaps, Span<int32_t> row_starts);
// One finite number for each output.
void check_bias(const Shape&, Span<float> bias);
// One finite number for each output, twice, and one above 0.
void check_norm(const Shape&, Span<float> scale, Span<float> bias, float epsilon);
// One finite number above 0 for each output, or 0 where all values of the row are 0.
void check_scales(const SparseWeight<int8_t>&, Span<float> scales);

}  // namespace stepdown
