// The INT8 kernel: sums of products with tokens side by side in a vector. Included by the source of one ISA.
//
// V: the vectors of the ISA. Dot: what it does to a unit of activations and a unit of weights.
#pragma once

#include <utility>

#include "int8_finish.h"
#include "int8_layer.h"
#include "int8_quantise.h"

namespace stepdown {
namespace {

// Entries whose units lie anywhere in a slab.
template <class V, int vectors>
struct Listed {
    const char* slab;
    const uint16_t* places;
    const char* operator[](int64_t entry) const { return slab + int64_t{places[entry]} * (vectors * V::bytes); }
};

// Entries whose units were gathered: one after the other.
template <class V, int vectors>
struct Gathered {
    const char* units;
    const char* operator[](int64_t entry) const { return units + entry * (vectors * V::bytes); }
};

template <class V, class Dot, int rows, int vectors>
[[gnu::always_inline]] inline void add_entry(const char* units, const uint32_t* weights,
                                             typename Dot::Sum (&sums)[rows][vectors]) {
    typename V::Int tokens[vectors];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) tokens[v] = V::load(units + v * V::bytes);
#pragma GCC unroll 8
    for (int row = 0; row < rows; ++row) {
        const auto weight = V::repeat(static_cast<int32_t>(weights[row]));
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) sums[row][v] = Dot::add(sums[row][v], tokens[v], weight);
    }
}

// Add the products of one group to sums [rows][tokens]. Several entries at a time where one has too few sums to hide
// the latency of a multiply-add.
template <class V, class Dot, int rows, int vectors, class Entries>
inline void add_group(const Entries& entries, int64_t count, const uint32_t* weights, bool first, int32_t* sums) {
    constexpr int at_once = rows * vectors >= 8 ? 1 : rows * vectors >= 3 ? 2 : 4;
    typename Dot::Sum partial[at_once][rows][vectors];
#pragma GCC unroll 8
    for (int i = 0; i < at_once; ++i) {
#pragma GCC unroll 8
        for (int row = 0; row < rows; ++row) {
#pragma GCC unroll 8
            for (int v = 0; v < vectors; ++v) partial[i][row][v] = Dot::zero();
        }
    }
    int64_t entry = 0;
    for (; entry + at_once <= count; entry += at_once) {
#pragma GCC unroll 8
        for (int i = 0; i < at_once; ++i) {
            add_entry<V, Dot, rows, vectors>(entries[entry + i], weights + (entry + i) * rows, partial[i]);
        }
    }
    for (; entry < count; ++entry) {
        add_entry<V, Dot, rows, vectors>(entries[entry], weights + entry * rows, partial[0]);
    }
#pragma GCC unroll 8
    for (int row = 0; row < rows; ++row) {
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) {
            int32_t* to = sums + (row * vectors + v) * V::lanes;
            auto total = Dot::integers(partial[0][row][v]);
#pragma GCC unroll 8
            for (int i = 1; i < at_once; ++i) total = V::add(total, Dot::integers(partial[i][row][v]));
            V::store(to, first ? total : V::add(total, V::load(to)));
        }
    }
}

struct NoGather {
    static constexpr bool gathers = false;
};

// Where one token is nothing special.
struct NoToken {
    static constexpr bool exists = false;
};

// One kernel: Dot's units, so many outputs in a group, panels of at most so many vectors, columns listed or gathered.
template <class V, class Dot, int rows, int widest, class Gather = NoGather, class Token = NoToken>
struct Kernel {
    static int64_t count_vectors(int64_t tokens) {
        const int64_t vectors = (tokens + V::lanes - 1) / V::lanes;
        return Gather::gathers && vectors == 3 ? 4 : vectors;
    }

    static void quantise(const Int8Layer& layer, const float* x, int64_t tokens, char* panel) {
        if constexpr (Token::exists) {
            if (tokens == 1) return Token::quantise(layer, x, panel);
        }
        const int64_t vectors = count_vectors(tokens);
        quantise_panel<V, Dot::unit>(layer, x, tokens, vectors * V::lanes, panel);
        if constexpr (Gather::gathers) Gather::split(panel, layer.units, vectors);
    }

    static void multiply(const Int8Layer& layer, const char* panel, int64_t tokens, int64_t strip, float* y) {
        if constexpr (Token::exists) {
            if (tokens == 1) return Token::multiply(layer, panel, strip, y);
        }
        alignas(64) int32_t sums[strip_rows * widest * V::lanes];
        fetch_outputs(layer, tokens, strip, y);
        const int64_t vectors = count_vectors(tokens);
        add_strip_of(std::make_integer_sequence<int, widest>(), vectors, layer, panel, strip, sums);
        const int64_t width = vectors * V::lanes;
        finish_strip<V>(layer, sums, panel_tail(layer, panel, width), width, tokens, strip, y);
    }

    // add_strip for as many vectors as there are, of 1 to widest.
    template <int... less_one>
    static void add_strip_of(std::integer_sequence<int, less_one...>, int64_t vectors, const Int8Layer& layer,
                             const char* panel, int64_t strip, int32_t* sums) {
        ((less_one + 1 == vectors ? add_strip<less_one + 1>(layer, panel, strip, sums) : void()), ...);
    }

    template <int vectors>
    static void add_strip(const Int8Layer& layer, const char* panel, int64_t strip, int32_t* sums) {
        if constexpr (Gather::gathers) {
            if constexpr (vectors != 3) add_gathered<vectors>(layer, panel, strip, sums);
        } else {
            add_listed<vectors>(layer, panel, strip, sums);
        }
    }

    template <int vectors>
    static void add_listed(const Int8Layer& layer, const char* panel, int64_t strip, int32_t* sums) {
        const uint16_t* counts = layer.counts + layer.counts_start[strip];
        const uint16_t* places = layer.places + layer.places_start[strip];
        const uint32_t* weights = layer.weights + layer.weights_start[strip];
        for (int64_t slab = 0; slab < layer.slabs; ++slab) {
            const char* units = panel + slab * layer.slab_units * (vectors * V::bytes);
            for (int64_t row = 0; row < strip_rows; row += rows) {
                const int64_t count = *counts++;
                add_group<V, Dot, rows, vectors>(Listed<V, vectors>{units, places}, count, weights, slab == 0,
                                                 sums + row * (vectors * V::lanes));
                places += count;
                weights += count * rows;
            }
        }
    }

    template <int vectors>
    static void add_gathered(const Int8Layer& layer, const char* panel, int64_t strip, int32_t* sums) {
        const uint16_t* counts = layer.counts + layer.counts_start[strip];
        const uint16_t* places = layer.places + layer.places_start[strip];
        const uint32_t* weights = layer.weights + layer.weights_start[strip];
        alignas(64) char gathered[Gather::most_entries * vectors * V::bytes];
        for (int64_t slab = 0; slab < layer.slabs; ++slab) {
            const char* columns = panel + slab * layer.slab_units * (vectors * V::bytes);
            for (int64_t list = 0; list < strip_rows; list += layer.list_rows) {
                const int64_t count = *counts++;
                Gather::template gather<vectors>(columns, places, count, gathered);
                for (int64_t row = list; row < list + layer.list_rows; row += rows) {
                    add_group<V, Dot, rows, vectors>(Gathered<V, vectors>{gathered}, count, weights, slab == 0,
                                                     sums + row * (vectors * V::lanes));
                    weights += count * rows;
                }
                places += 4 * count;
            }
        }
    }

    static Int8Kernel describe(int64_t slab_columns) {
        return {Dot::unit, rows, Gather::gathers, slab_columns, V::lanes, widest, quantise, multiply, nullptr};
    }
};

}  // namespace
}  // namespace stepdown
