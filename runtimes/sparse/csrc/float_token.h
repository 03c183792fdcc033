// The FP32 product for a single token: no lanes of tokens to fill, so four weights go into a vector instead.
//
// In: the same packed weight as the panels (float_panel.h). Isa, beside what they need: Four, lanes for four floats
// (lanes_fma.h), and sum_gathered, which adds up values[i] * x[columns[i]] for each i % 4.
// A sum is added up in another order than a panel's: tile by tile, and inside a tile in several parts.
#pragma once

#include <cstddef>

#include "activation.h"
#include "float_kernel.h"

namespace stepdown {

// sum_gathered where there is nothing better than four loads. count is a multiple of 4.
template <class Four>
typename Four::Vector sum_gathered_by_fours(const float* values, const uint8_t* columns, int count, const float* x) {
    auto sum = Four::broadcast(0);
    for (int at = 0; at < count; at += 4) {
        const float inputs[4] = {x[columns[at]], x[columns[at + 1]], x[columns[at + 2]], x[columns[at + 3]]};
        sum = Four::multiply_add(Four::load_unaligned(values + at), Four::load_unaligned(inputs), sum);
    }
    return sum;
}

// From the sums of a chunk's rows to the answer.
template <class Isa>
void finish_token(const FloatJob& job, const FloatChunk& chunk, const float* sums) {
    for (int64_t row = 0; row < chunk.rows; row += Isa::lanes) {
        const auto answer = activate<Isa>(Isa::load_unaligned(sums + row), job.activation);
        const int64_t count = chunk.rows - row < Isa::lanes ? chunk.rows - row : Isa::lanes;
        Isa::store_first(job.y + chunk.first_row + row, answer, static_cast<int>(count));
    }
}

template <class Isa, bool shared, int width>
class FloatToken {
    using Four = typename Isa::Four;
    using Vector = typename Four::Vector;

public:
    static int64_t inputs_size(const FloatWeight& weight) { return round_up(weight.tiles * tile_size, Isa::lanes); }

    static void run(const FloatJob& job) {
        const FloatWeight& weight = *job.weight;
        float* const x = job.scratch;
        float* const sums = x + inputs_size(weight);
        pack(job, x);
        for (int64_t at = job.first_chunk; at < job.last_chunk; ++at) {
            const FloatChunk& chunk = weight.chunks[at];
            for (int64_t row = 0; row < round_up(chunk.rows, chunk_row_unit); ++row) sums[row] = chunk.bias[row];
            for (int64_t tile = 0; tile < weight.tiles; ++tile) multiply(chunk.tiles[tile], x + tile * tile_size, sums);
            finish_token<Isa>(job, chunk, sums);
        }
    }

private:
    static constexpr int32_t tile_size = Isa::depth + group_rows;

    // Four zeros after the inputs of each tile, as in a panel.
    static void pack(const FloatJob& job, float* to) {
        const int64_t in = job.weight->shape.in;
        for (int64_t tile = 0; tile < job.weight->tiles; ++tile) {
            const int64_t left = tile * Isa::depth;
            for (int32_t at = 0; at < tile_size; ++at) {
                *to++ = at < Isa::depth && left + at < in ? job.x[left + at] : 0;
            }
        }
    }

    static void multiply(const FloatTile& tile, const float* x, float* sums) {
        const float* values = tile.values;
        const uint8_t* columns = tile.columns;
        for (int64_t at = 0; at < tile.group_count; ++at) {
            const FloatGroup& group = tile.groups[at];
            float found[group_rows];
            Four::store_unaligned(found, sum(values, columns, group.steps, x));
            for (int row = 0; row < group_rows; ++row) sums[group.rows[row]] += found[row];
            values += static_cast<size_t>(group.steps) * group_rows * width;
            columns += static_cast<size_t>(group.steps) * (shared ? 1 : group_rows);
        }
    }

    static Vector sum(const float* values, const uint8_t* columns, int32_t steps, const float* x) {
        if constexpr (shared) return sum_shared(values, columns, steps, x);
        if constexpr (!shared && width == 1) return Isa::sum_gathered(values, columns, steps * group_rows, x);
        if constexpr (!shared && width == 4) return sum_wide(values, columns, steps, x);
    }

    static Vector sum_four(const Vector (&parts)[4]) {
        return Four::add(Four::add(parts[0], parts[1]), Four::add(parts[2], parts[3]));
    }

    // The four rows side by side in a vector, one input for all. Four sums hide the latency of the additions.
    static Vector sum_shared(const float* values, const uint8_t* columns, int32_t steps, const float* x) {
        const Vector zero = Four::broadcast(0);
        Vector parts[4] = {zero, zero, zero, zero};
        constexpr int at_once = 4 / width;
        int32_t step = 0;
        for (; step + at_once <= steps; step += at_once) {
            for (int part = 0; part < 4; ++part) add_column(parts[part], values, columns, step * width + part, x);
        }
        for (; step < steps; ++step) add_column(parts[0], values, columns, step, x);
        return sum_four(parts);
    }

    static void add_column(Vector& sum, const float* values, const uint8_t* columns, int32_t at, const float* x) {
        const float* const input = x + columns[at / width] + at % width;
        sum = Four::multiply_add(Four::load_unaligned(values + at * group_rows), Four::broadcast(*input), sum);
    }

    // Four inputs side by side, a sum for each row; then the four are added across.
    static Vector sum_wide(const float* values, const uint8_t* columns, int32_t steps, const float* x) {
        const Vector zero = Four::broadcast(0);
        Vector rows[4] = {zero, zero, zero, zero};
        for (int32_t step = 0; step < steps; ++step) {
            for (int row = 0; row < group_rows; ++row) {
                const Vector inputs = Four::load_unaligned(x + columns[step * group_rows + row]);
                rows[row] =
                    Four::multiply_add(Four::load_unaligned(values + (step * group_rows + row) * 4), inputs, rows[row]);
            }
        }
        Four::transpose(rows);
        return sum_four(rows);
    }
};

}  // namespace stepdown
