// The FP32 product for a panel of tokens, for any instruction set: the sources of each give the Isa and its flags.
//
// A tile of the panel's inputs is turned round, [vector][depth + 4][lane], a token a lane: one weight times one vector
// of inputs is then one fused multiply-add for as many tokens as there are lanes. The last four inputs are zeros. A
// tile is turned once, while it is in the first cache, for all rows of the job; their sums, [row][token], stay in the
// second one from tile to tile, and are turned back with the activation when they are done. Every sum starts from its
// bias and takes its columns from left to right.
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
    static int64_t scratch_size(const FloatJob& job) {
        const FloatWeight& weight = *job.weight;
        const FloatChunk& last = weight.chunks[job.last_chunk - 1];
        const int64_t end = last.first_row + round_up(last.rows, chunk_row_unit);
        const int64_t rows = end - weight.chunks[job.first_chunk].first_row;
        if (job.tokens == 1) return Token::inputs_size(weight) + rows;
        return (Isa::depth + group_rows + rows) * round_up(job.tokens, lanes);
    }

    static void run(const FloatJob& job) {
        if (job.tokens == 1) return Token::run(job);
        run_vectors<Isa::panel_vectors(shared)>(job);
    }

private:
    using Token = FloatToken<Isa, shared, width>;

    template <int most>
    static void run_vectors(const FloatJob& job) {
        if constexpr (most > 1) {
            if (job.tokens <= (most - 1) * lanes) return run_vectors<most - 1>(job);
        }
        for (int64_t tile = 0; tile < job.weight->tiles; ++tile) {
            pack<most>(job, tile);
            tile == 0 ? add_tile<most, true>(job, tile) : add_tile<most, false>(job, tile);
        }
    }

    template <int vectors, bool first>
    static void add_tile(const FloatJob& job, int64_t tile) {
        const FloatChunk* const chunks = job.weight->chunks;
        const bool last = tile + 1 == job.weight->tiles;
        float* sums = job.scratch + vectors * panel_stride;
        for (int64_t at = job.first_chunk; at < job.last_chunk; ++at) {
            if (last) prefetch_answers(job, chunks[at]);
            multiply<vectors, first>(chunks[at].tiles[tile], chunks[at].bias, job.scratch, sums);
            if (last) finish<vectors>(job, chunks[at], sums);
            sums += chunks[at].rows * vectors * lanes;
        }
    }

    // Sixteen rows of x from left to right, then the next: no more streams than the hardware prefetches.
    template <int vectors>
    static void pack(const FloatJob& job, int64_t tile) {
        float* to = job.scratch;
        for (int vector = 0; vector < vectors; ++vector) {
            for (int32_t column = 0; column < Isa::depth; column += lanes, to += lanes * lanes) {
                turn(job, vector * lanes, tile * Isa::depth + column, to);
            }
            for (int32_t zero = 0; zero < group_rows; ++zero, to += lanes) Isa::store(to, Isa::broadcast(0));
        }
    }

    // Lanes inputs of lanes tokens.
    static void turn(const FloatJob& job, int64_t token, int64_t column, float* to) {
        const int64_t in = job.weight->shape.in;
        if (in - column < lanes || job.tokens - token < lanes) return turn_edge(job, token, column, to);
        const float* const from = job.x + token * in + column;
        Vector rows[lanes];
        for (int at = 0; at < lanes; ++at) rows[at] = Isa::load_unaligned(from + at * in);
        Isa::transpose(rows);
        for (int at = 0; at < lanes; ++at) Isa::store(to + at * lanes, rows[at]);
    }

    // Where tokens are missing the last stands in for them: nobody reads their sums. Missing inputs are zeros.
    // A function of its own: where both share a loop, the compiler keeps all rows in memory.
    [[gnu::noinline]] static void turn_edge(const FloatJob& job, int64_t token, int64_t column, float* to) {
        const int64_t in = job.weight->shape.in;
        const int64_t left = in - column;
        const int count = left >= lanes ? lanes : left > 0 ? static_cast<int>(left) : 0;
        Vector rows[lanes];
        for (int at = 0; at < lanes; ++at) {
            const int64_t from = token + at < job.tokens ? token + at : job.tokens - 1;
            rows[at] = count == 0 ? Isa::broadcast(0) : Isa::load_first(job.x + from * in + column, count);
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
                const float* const from = sums + (row * vectors + vector) * lanes;
                float* const to = job.y + vector * lanes * out + chunk.first_row + row;
                Vector now[lanes];
                // Loads alone stay in registers: a layer of 1,536 outputs at 10 % took 4 % less than with one loop.
                if (job.activation == Activation::none) {
                    for (int at = 0; at < lanes; ++at) now[at] = Isa::load(from + at * vectors * lanes);
                } else {
                    for (int at = 0; at < lanes; ++at) {
                        now[at] = activate<Isa>(Isa::load(from + at * vectors * lanes), job.activation);
                    }
                }
                Isa::transpose(now);
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
    return {Isa::lanes, Isa::depth, Isa::lanes * Isa::panel_vectors(shared), Panel::scratch_size, Panel::run, nullptr};
}

template <class Isa>
FloatKernel choose_float_kernel(const FloatPattern& pattern) {
    if (pattern.shared) {
        return pattern.width == 1 ? make_float_kernel<Isa, true, 1>() : make_float_kernel<Isa, true, 4>();
    }
    return pattern.width == 1 ? make_float_kernel<Isa, false, 1>() : make_float_kernel<Isa, false, 4>();
}

}  // namespace stepdown
