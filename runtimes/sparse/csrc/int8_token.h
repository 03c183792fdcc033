// The INT8 kernel for one token: nothing to lay side by side, so outputs fill a vector, or the columns of one output
// do.
//
// Included by the source of one ISA. V, Dot: as in int8_kernel.h. Four, FourDot: the same for vectors of four.
#pragma once

#include <cstring>

#include "int8_finish.h"
#include "int8_quantise.h"

namespace stepdown {
namespace {

// Units of the token, one after the other, then its step and zero point: a panel one token wide.
template <class V, Unit unit>
void quantise_token(const Int8Layer& layer, const float* x, char* panel) {
    const Range range = quantise_row<V, unit>(layer, x, panel);
    const int32_t zero_point = split_zero_point(range.zero_point);
    char* tail = panel_tail(layer, panel, 1);
    std::memcpy(tail, &range.step, sizeof range.step);
    std::memcpy(tail + sizeof range.step, &zero_point, sizeof zero_point);
}

// The products of four outputs that share their units; unit(entry) says where one is. Two sums hide the latency.
template <class Four, class FourDot, class Find>
typename Four::Int sum_four(int64_t count, const uint32_t* weights, const Find& unit) {
    auto even = FourDot::zero(), odd = even;
    int64_t entry = 0;
    for (; entry + 2 <= count; entry += 2) {
        even = FourDot::add(even, Four::repeat(unit(entry)), Four::load(weights + entry * 4));
        odd = FourDot::add(odd, Four::repeat(unit(entry + 1)), Four::load(weights + entry * 4 + 4));
    }
    if (entry < count) even = FourDot::add(even, Four::repeat(unit(entry)), Four::load(weights + entry * 4));
    return Four::add(FourDot::integers(even), FourDot::integers(odd));
}

// The products of one output, whose units are fetched from wherever they are.
template <class V, class Dot>
int32_t sum_one(int64_t count, const uint32_t* weights, const char* units, const uint16_t* places) {
    auto sum = Dot::zero();
    for (int64_t entry = 0; entry < count; entry += V::lanes) {
        const int64_t left = count - entry < V::lanes ? count - entry : V::lanes;
        sum = Dot::add(sum, V::gather(units, places + entry, left), V::load_first(weights + entry, left));
    }
    return V::total(Dot::integers(sum));
}

template <class V, class Dot, class Four, class FourDot, int rows, class Gather>
struct OneToken {
    static constexpr bool exists = true;

    static void quantise(const Int8Layer& layer, const float* x, char* panel) {
        quantise_token<V, Dot::unit>(layer, x, panel);
    }

    static void multiply(const Int8Layer& layer, const char* panel, int64_t strip, float* y) {
        int32_t sums[strip_rows] = {};
        const uint16_t* counts = layer.counts + layer.counts_start[strip];
        const uint16_t* places = layer.places + layer.places_start[strip];
        const uint32_t* weights = layer.weights + layer.weights_start[strip];
        for (int64_t slab = 0; slab < layer.slabs; ++slab) {
            const char* units = panel + slab * layer.slab_units * 4;
            for (int64_t list = 0; list < strip_rows; list += layer.list_rows) {
                const int64_t count = *counts++;
                add_list(layer, count, units, places, weights, sums + list);
                places += Gather::gathers ? 4 * count : count;
                weights += count * layer.list_rows;
            }
        }
        finish_strip<V>(layer, sums, panel_tail(layer, panel, 1), 1, 1, strip, y);
    }

    static void add_list(const Int8Layer& layer, int64_t count, const char* units, const uint16_t* places,
                         const uint32_t* weights, int32_t* sums) {
        if constexpr (Gather::gathers) {
            char quads[4 * Gather::most_entries];
            for (int64_t column = 0; column < 4 * count; ++column) quads[column] = units[places[column]];
            for (int64_t row = 0; row < layer.list_rows; row += rows, weights += count * rows) {
                add_four(sums + row,
                         sum_four<Four, FourDot>(count, weights, [&](int64_t entry) { return quads + entry * 4; }));
            }
        } else if constexpr (rows == 4) {
            add_four(sums, sum_four<Four, FourDot>(count, weights,
                                                   [&](int64_t entry) { return units + int64_t{places[entry]} * 4; }));
        } else {
            *sums += sum_one<V, Dot>(count, weights, units, places);
        }
    }

private:
    static void add_four(int32_t* sums, typename Four::Int products) {
        Four::store(sums, Four::add(Four::load(sums), products));
    }
};

}  // namespace
}  // namespace stepdown
