// The FP32 product for a panel of tokens, for any instruction set: the sources of each give the Isa and its flags.
//
// The panel's inputs are turned round, [tile][vector][depth + 4][lane], a token a lane: one weight times one vector of
// inputs is then one fused multiply-add for as many tokens as there are lanes. The four inputs after the last of a tile
// are zeros. Sums are [row][token] until they are done, and turned back with bias and activation.
// Every sum starts from its bias and takes its columns from left to right.
#pragma once

#include <cstddef>

#include "activation.h"
#include "float_kernel.h"
#include "float_token.h"

namespace stepdown {

// Isa, beside what Lanes offers: load, store (aligned), load_first, store_first (of n numbers, unaligned), transpose,
// sum_gathered (float_token.h) and rows_at_once(vectors): how many rows' sums fit the registers.
template <class Isa, bool shared, int width>
class FloatPanel {
    using Vector = typename Isa::Vector;
    static constexpr int lanes = Isa::lanes;
    // From the inputs of a vector of tokens to the next: a constant, so that it costs no register.
    static constexpr int64_t panel_stride = (Isa::depth + group_rows) * lanes;

public:
    static int64_t scratch_size(const FloatWeight& weight, int64_t tokens) {
        const int64_t columns = round_up(tokens, lanes);
        return (weight.tiles * (Isa::depth + group_rows) + most_rows(weight)) * columns;
    }

    static void run(const FloatJob& job) {
        if (job.tokens == 1) return FloatToken<Isa, shared, width>::run(job);
        run_vectors<Isa::panel_vectors(shared)>(job);
    }

private:
    static int64_t most_rows(const FloatWeight& weight) {
        int64_t most = 0;
        for (int64_t chunk = 0; chunk < weight.chunk_count; ++chunk) {
            most = weight.chunks[chunk].rows > most ? weight.chunks[chunk].rows : most;
        }
        return round_up(most, chunk_row_unit);
    }

    template <int most>
    static void run_vectors(const FloatJob& job) {
        if constexpr (most > 1) {
            if (job.tokens <= (most - 1) * lanes) return run_vectors<most - 1>(job);
        }
        const FloatWeight& weight = *job.weight;
        const int64_t tile_size = most * panel_stride;
        float* const sums = job.scratch + weight.tiles * tile_size;
        pack<most>(job);
        for (int64_t at = job.first_chunk; at < job.last_chunk; ++at) {
            const FloatChunk& chunk = weight.chunks[at];
            prefetch_answers(job, chunk);
            multiply<most, true>(chunk.tiles[0], chunk.bias, job.scratch, sums);
            for (int64_t tile = 1; tile < weight.tiles; ++tile) {
                multiply<most, false>(chunk.tiles[tile], nullptr, job.scratch + tile * tile_size, sums);
            }
            finish<most>(job, chunk, sums);
        }
    }

    // Sixteen rows of x from left to right, then the next: no more streams than the hardware prefetches.
    template <int vectors>
    static void pack(const FloatJob& job) {
        for (int vector = 0; vector < vectors; ++vector) {
            for (int64_t tile = 0; tile < job.weight->tiles; ++tile) {
                float* to = job.scratch + (tile * vectors + vector) * panel_stride;
                for (int32_t column = 0; column < Isa::depth; column += lanes, to += lanes * lanes) {
                    turn(job, vector * lanes, tile * Isa::depth + column, to);
                }
                for (int32_t zero = 0; zero < group_rows; ++zero, to += lanes) Isa::store(to, Isa::broadcast(0));
            }
        }
    }

    // Lanes inputs of lanes tokens. Where tokens are missing the last stands in for them: nobody reads their sums.
    static void turn(const FloatJob& job, int64_t token, int64_t column, float* to) {
        const int64_t in = job.weight->shape.in;
        const int64_t left = in - column;
        Vector rows[lanes];
        if (left >= lanes && token + lanes <= job.tokens) {
            const float* const from = job.x + token * in + column;
            for (int at = 0; at < lanes; ++at) rows[at] = Isa::load_unaligned(from + at * in);
        } else {
            const int count = left >= lanes ? lanes : left > 0 ? static_cast<int>(left) : 0;
            for (int at = 0; at < lanes; ++at) {
                const int64_t from = token + at < job.tokens ? token + at : job.tokens - 1;
                rows[at] = count == 0 ? Isa::broadcast(0) : Isa::load_first(job.x + from * in + column, count);
            }
        }
        Isa::transpose(rows);
        for (int at = 0; at < lanes; ++at) Isa::store(to + at * lanes, rows[at]);
    }

    template <int vectors, bool first>
    static void multiply(const FloatTile& tile, const float* bias, const float* panel, float* sums) {
        constexpr int rows = Isa::template rows_at_once<vectors>(shared);
        static_assert(!shared || rows == group_rows, "a group that shares columns is one");
        const float* values = tile.values;
        const uint8_t* columns = tile.columns;
        for (int64_t at = 0; at < tile.group_count; ++at) {
            const FloatGroup& group = tile.groups[at];
            for (int part = 0; part < group_rows; part += rows) {
                Vector now[rows][vectors];
                float* places[rows];
                for (int row = 0; row < rows; ++row) {
                    const size_t number = group.rows[part + row];
                    places[row] = sums + number * vectors * lanes;
                    for (int vector = 0; vector < vectors; ++vector) {
                        now[row][vector] =
                            first ? Isa::broadcast(bias[number]) : Isa::load(places[row] + vector * lanes);
                    }
                }
                add_steps<vectors, rows>(now, values + part * width, columns + part, group.steps, panel);
                for (int row = 0; row < rows; ++row) {
                    for (int vector = 0; vector < vectors; ++vector) {
                        Isa::store(places[row] + vector * lanes, now[row][vector]);
                    }
                }
            }
            values += static_cast<size_t>(group.steps) * group_rows * width;
            columns += static_cast<size_t>(group.steps) * (shared ? 1 : group_rows);
        }
    }

    // The innermost loop: all bounds but one are constants, so that sums stay in registers.
    template <int vectors, int rows>
    static inline void add_steps(Vector (&sums)[rows][vectors], const float* values, const uint8_t* columns,
                                 int32_t steps, const float* panel) {
        for (int32_t step = 0; step < steps; ++step) {
            if constexpr (shared) {
                const float* const x = panel + static_cast<size_t>(*columns) * lanes;
                for (int column = 0; column < width; ++column) {
                    Vector now[vectors];
                    for (int vector = 0; vector < vectors; ++vector) {
                        now[vector] = Isa::load(x + vector * panel_stride + column * lanes);
                    }
                    for (int row = 0; row < rows; ++row) {
                        const Vector weight = Isa::broadcast(values[column * group_rows + row]);
                        for (int vector = 0; vector < vectors; ++vector) {
                            sums[row][vector] = Isa::multiply_add(weight, now[vector], sums[row][vector]);
                        }
                    }
                }
            } else {
                for (int row = 0; row < rows; ++row) {
                    const float* const x = panel + static_cast<size_t>(columns[row]) * lanes;
                    for (int column = 0; column < width; ++column) {
                        const Vector weight = Isa::broadcast(values[row * width + column]);
                        for (int vector = 0; vector < vectors; ++vector) {
                            const Vector now = Isa::load(x + vector * panel_stride + column * lanes);
                            sums[row][vector] = Isa::multiply_add(weight, now, sums[row][vector]);
                        }
                    }
                }
            }
            values += group_rows * width;
            columns += shared ? 1 : group_rows;
        }
    }

    // Ask for the memory that finish() will write: there is time until then. Answers that are in no cache yet made a
    // layer of 1536 outputs slower by half than those that are (1,024 tokens, under ONNX Runtime).
    static void prefetch_answers(const FloatJob& job, const FloatChunk& chunk) {
        constexpr int64_t line = 64 / sizeof(float);
        for (int64_t token = 0; token < job.tokens; ++token) {
            const float* const to = job.y + token * job.weight->shape.out + chunk.first_row;
            for (int64_t row = 0; row < chunk.rows; row += line) __builtin_prefetch(to + row, 1, 2);
        }
    }

    template <int vectors>
    static void finish(const FloatJob& job, const FloatChunk& chunk, const float* sums) {
        const int64_t out = job.weight->shape.out;
        for (int vector = 0; vector < vectors; ++vector) {
            const int64_t tokens = job.tokens - vector * lanes < lanes ? job.tokens - vector * lanes : lanes;
            for (int64_t row = 0; row < chunk.rows; row += lanes) {
                Vector now[lanes];
                for (int at = 0; at < lanes; ++at) {
                    const Vector sum = Isa::load(sums + ((row + at) * vectors + vector) * lanes);
                    now[at] = activate<Isa>(sum, job.activation);
                }
                Isa::transpose(now);
                float* const to = job.y + vector * lanes * out + chunk.first_row + row;
                const int64_t count = chunk.rows - row < lanes ? chunk.rows - row : lanes;
                if (count == lanes && tokens == lanes) {
                    for (int at = 0; at < lanes; ++at) Isa::store_unaligned(to + at * out, now[at]);
                } else {
                    for (int at = 0; at < tokens; ++at)
                        Isa::store_first(to + at * out, now[at], static_cast<int>(count));
                }
            }
        }
    }
};

template <class Isa, bool shared, int width>
FloatKernel make_float_kernel() {
    using Panel = FloatPanel<Isa, shared, width>;
    return {Isa::lanes, Isa::depth, Isa::lanes * Isa::panel_vectors(shared), Panel::scratch_size, Panel::run};
}

template <class Isa>
FloatKernel choose_float_kernel(const FloatPattern& pattern) {
    if (pattern.shared) {
        return pattern.width == 1 ? make_float_kernel<Isa, true, 1>() : make_float_kernel<Isa, true, 4>();
    }
    return pattern.width == 1 ? make_float_kernel<Isa, false, 1>() : make_float_kernel<Isa, false, 4>();
}

}  // namespace stepdown
