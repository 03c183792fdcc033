// Activations of a panel, quantised and turned so that tokens lie side by side. Included by the source of one ISA.
//
// The arithmetic, operation for operation, is that of runtimes/sparse/reference.py.
#pragma once

#include <limits>

#include "int8_layer.h"

namespace stepdown {
namespace {

struct Range {
    float step, inverse;
    int32_t zero_point;
};

template <class V>
struct Extremes {
    typename V::Float low = V::broadcast(0), high = low, nothing = low;

    void add(typename V::Float values) {
        low = V::min(low, values);
        high = V::max(high, values);
        nothing = V::multiply_add(values, V::broadcast(0), nothing);  // NaN once there is a NaN or an infinity
    }
    void add(const Extremes& other) {
        low = V::min(low, other.low);
        high = V::max(high, other.high);
        nothing = V::add(nothing, other.nothing);
    }
};

template <class V>
Range find_range(const float* x, int64_t in) {
    Extremes<V> even, odd;
    int64_t i = 0;
    for (; in - i >= 2 * V::lanes; i += 2 * V::lanes) {
        even.add(V::load(x + i));
        odd.add(V::load(x + i + V::lanes));
    }
    for (; i < in; i += V::lanes) even.add(in - i >= V::lanes ? V::load(x + i) : V::load_first(x + i, in - i));
    even.add(odd);
    const float least = V::least(even.low);
    const float span = V::most(even.high) - least;
    if (!V::is_zero(even.nothing) || !(span <= std::numeric_limits<float>::max())) {
        return {std::numeric_limits<float>::quiet_NaN(), 0, 0};
    }
    const float step = span / 255 < std::numeric_limits<float>::min() ? 1 : span / 255;
    const float inverse = 1 / step;
    return {step, inverse, V::round_one(-least * inverse)};
}

// The levels of one token at so many columns as fill a vector with units. Past the end: the zero point, of no weight.
template <class V, Unit unit>
typename V::Int quantise_units(const float* x, int64_t left, const Range& range) {
    const auto inverse = V::broadcast(range.inverse);
    const auto zero_point = V::repeat(range.zero_point);
    constexpr int64_t parts = unit_columns(unit);
    typename V::Int levels[parts];
    if (left >= parts * V::lanes) {
        for (int64_t part = 0; part < parts; ++part) {
            levels[part] = V::add(V::round(V::multiply(V::load(x + part * V::lanes), inverse)), zero_point);
        }
    } else {
        for (int64_t part = 0; part < parts; ++part) {
            const int64_t first = part * V::lanes < left ? part * V::lanes : left;
            const int64_t count = left - first < V::lanes ? left - first : V::lanes;
            levels[part] = V::add(V::round(V::multiply(V::load_first(x + first, count), inverse)), zero_point);
        }
    }
    return V::template join<unit>(levels);
}

// One token, in units that lie one after the other.
template <class V, Unit unit>
Range quantise_row(const Int8Layer& layer, const float* x, char* units) {
    const Range range = find_range<V>(x, layer.in);
    for (int64_t at = 0; at < layer.units; at += V::lanes) {
        const int64_t column = at * unit_columns(unit);
        V::store(units + at * 4, quantise_units<V, unit>(x + column, layer.in - column, range));
    }
    return range;
}

// Panel rows are [unit][width tokens]. Tokens past the last are zeros.
template <class V, Unit unit>
void quantise_panel(const Int8Layer& layer, const float* x, int64_t tokens, int64_t width, char* panel) {
    float* steps = reinterpret_cast<float*>(panel_tail(layer, panel, width));
    int32_t* zero_points = reinterpret_cast<int32_t*>(steps + width);
    for (int64_t first = 0; first < width; first += V::lanes) {
        const int64_t count = tokens - first < V::lanes ? tokens - first : V::lanes;
        const float* from = x + first * layer.in;
        Range ranges[V::lanes];
        for (int64_t t = 0; t < V::lanes; ++t) {
            ranges[t] = t < count ? find_range<V>(from + t * layer.in, layer.in) : Range{0, 0, 0};
            steps[first + t] = ranges[t].step;
            zero_points[first + t] = split_zero_point(ranges[t].zero_point);
        }
        for (int64_t at = 0; at < layer.units; at += V::lanes) {
            const int64_t column = at * unit_columns(unit);
            typename V::Int tile[V::lanes];
            for (int64_t t = 0; t < V::lanes; ++t) {
                tile[t] = t < count
                              ? quantise_units<V, unit>(from + t * layer.in + column, layer.in - column, ranges[t])
                              : V::repeat(0);
            }
            V::transpose(tile);
            for (int64_t row = 0; row < V::lanes; ++row) {
                V::store(panel + ((at + row) * width + first) * 4, tile[row]);
            }
        }
    }
}

}  // namespace
}  // namespace stepdown
