// From sums of products to the output: rescaled, through the activation, tokens one after the other again.
//
// Included by the source of one ISA. The arithmetic, operation for operation, is that of runtimes/sparse/reference.py.
#pragma once

#include "activation.h"
#include "int8_layer.h"

namespace stepdown {
namespace {

// Ask for the memory of the output while the products are being summed: without, writing it takes longer than they do.
inline void fetch_outputs(const Int8Layer& layer, int64_t tokens, int64_t strip, float* y) {
    constexpr int64_t cache_line = 64 / sizeof(float);
    for (int64_t token = 0; token < tokens; ++token) {
        const float* row = y + token * layer.out + strip * strip_rows;
        for (int64_t at = 0; at < strip_rows; at += cache_line) __builtin_prefetch(row + at, 1);
    }
}

// What a vector of outputs needs once it is summed.
template <class V>
struct Outputs {
    typename V::Int sums;
    typename V::Float scales, bias;
};

template <class V>
Outputs<V> load_outputs(const Int8Layer& layer, int64_t row) {
    return {V::load(layer.sums + row), V::load(layer.scales + row), V::load(layer.bias + row)};
}

// The answer of one token from its sums of products.
template <class V, Activation activation>
[[gnu::always_inline]] inline typename V::Float finish_vector(const Outputs<V>& outputs, typename V::Int sums,
                                                              float step, int32_t zero_point) {
    const auto shift = V::multiply_pairs(V::repeat(zero_point), outputs.sums);
    const auto factor = V::multiply(V::broadcast(step), outputs.scales);
    const auto sum = V::to_float(V::subtract(sums, shift));
    return activate<V>(V::add(V::multiply(sum, factor), outputs.bias), activation);
}

// sums [V::lanes outputs][width] of at most V::lanes tokens -> y.
template <class V, Activation activation>
inline void finish_tile(const Outputs<V>& outputs, const int32_t* sums, int64_t width, const float* steps,
                        const int32_t* zero_points, int64_t tokens, int64_t rows, float* y, int64_t out) {
    typename V::Int tile[V::lanes];
#pragma GCC unroll 16
    for (int64_t i = 0; i < V::lanes; ++i) tile[i] = V::load(sums + i * width);
    V::transpose(tile);
    if (tokens == V::lanes && rows == V::lanes) {
#pragma GCC unroll 16
        for (int64_t t = 0; t < V::lanes; ++t) {
            V::store(y + t * out, finish_vector<V, activation>(outputs, tile[t], steps[t], zero_points[t]));
        }
    } else {
        for (int64_t t = 0; t < tokens; ++t) {
            V::store_first(y + t * out, rows, finish_vector<V, activation>(outputs, tile[t], steps[t], zero_points[t]));
        }
    }
}

// Tokens outside, outputs inside: what lies side by side in memory is written soon after.
template <class V, Activation activation>
void finish_tiles(const Int8Layer& layer, const int32_t* sums, const char* tail, int64_t width, int64_t tokens,
                  int64_t strip, float* y) {
    const float* steps = reinterpret_cast<const float*>(tail);
    const int32_t* zero_points = reinterpret_cast<const int32_t*>(steps + width);
    const int64_t first_row = strip * strip_rows;
    const int64_t last_row = first_row + strip_rows < layer.out ? first_row + strip_rows : layer.out;
    for (int64_t first = 0; first < tokens; first += V::lanes) {
        const int64_t count = tokens - first < V::lanes ? tokens - first : V::lanes;
        for (int64_t row = first_row; row < last_row; row += V::lanes) {
            const int64_t rows = last_row - row < V::lanes ? last_row - row : V::lanes;
            const Outputs<V> outputs = load_outputs<V>(layer, row);
            finish_tile<V, activation>(outputs, sums + (row - first_row) * width + first, width, steps + first,
                                       zero_points + first, count, rows, y + first * layer.out + row, layer.out);
        }
    }
}

// sums [strip_rows] of the one token of a panel.
template <class V, Activation activation>
void finish_one(const Int8Layer& layer, const int32_t* sums, const char* tail, int64_t strip, float* y) {
    const float step = *reinterpret_cast<const float*>(tail);
    const int32_t zero_point = *reinterpret_cast<const int32_t*>(tail + sizeof step);
    const int64_t first_row = strip * strip_rows;
    const int64_t last_row = first_row + strip_rows < layer.out ? first_row + strip_rows : layer.out;
    for (int64_t row = first_row; row < last_row; row += V::lanes) {
        const int64_t rows = last_row - row < V::lanes ? last_row - row : V::lanes;
        const auto outputs = load_outputs<V>(layer, row);
        V::store_first(y + row, rows,
                       finish_vector<V, activation>(outputs, V::load(sums + row - first_row), step, zero_point));
    }
}

// sums [strip_rows][width] and what a panel keeps of its tokens -> y [tokens][out], the outputs of a strip.
template <class V, Activation activation>
void finish_activated(const Int8Layer& layer, const int32_t* sums, const char* tail, int64_t width, int64_t tokens,
                      int64_t strip, float* y) {
    if (width == 1) {
        finish_one<V, activation>(layer, sums, tail, strip, y);
    } else {
        finish_tiles<V, activation>(layer, sums, tail, width, tokens, strip, y);
    }
}

template <class V>
void finish_strip(const Int8Layer& layer, const int32_t* sums, const char* tail, int64_t width, int64_t tokens,
                  int64_t strip, float* y) {
    switch (layer.activation) {
        case Activation::none:
            return finish_activated<V, Activation::none>(layer, sums, tail, width, tokens, strip, y);
        case Activation::relu:
            return finish_activated<V, Activation::relu>(layer, sums, tail, width, tokens, strip, y);
        case Activation::gelu:
            return finish_activated<V, Activation::gelu>(layer, sums, tail, width, tokens, strip, y);
        case Activation::gelu_tanh:
            return finish_activated<V, Activation::gelu_tanh>(layer, sums, tail, width, tokens, strip, y);
        case Activation::silu:
            return finish_activated<V, Activation::silu>(layer, sums, tail, width, tokens, strip, y);
    }
}

}  // namespace
}  // namespace stepdown
