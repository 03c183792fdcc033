// The FP32 product for a single token where an instruction set spreads packed values over a vector.
//
// In: the weight by rows, with masks (masked_rows.h). Isa, beside what a token needs (float_token.h): add_masked, which
// adds values[i] * x[column] for the column of the i-th bit that is set, and fold, which adds up each fourth lane.
#pragma once

#include "float_kernel.h"
#include "float_token.h"

namespace stepdown {

template <class Isa>
class FloatMasked {
    using Four = typename Isa::Four;
    using Vector = typename Isa::Vector;
    using Rows = MaskedRows<float>;
    static_assert(Rows::lanes == Isa::lanes && masked_group == group_rows, "a mask is a vector of one of four rows");

public:
    // In the scratch of the other kernel for one token.
    static void run(const FloatJob& job) {
        const Rows& rows = *job.masked;
        float* const x = job.scratch;
        float* const sums = x + rows.blocks * Rows::lanes;
        for (int64_t column = 0; column < rows.blocks * Rows::lanes; column += Rows::lanes) {
            const int64_t left = job.weight->shape.in - column;
            Isa::store(x + column,
                       Isa::load_first(job.x + column, left < Rows::lanes ? static_cast<int>(left) : Rows::lanes));
        }
        for (int64_t at = job.first_chunk; at < job.last_chunk; ++at) {
            const FloatChunk& chunk = job.weight->chunks[at];
            for (int64_t row = 0; row < chunk.rows; row += group_rows) {
                const auto found = sum_group(rows, (chunk.first_row + row) / group_rows, x);
                Four::store_unaligned(sums + row, Four::add(Four::load_unaligned(chunk.bias + row), found));
            }
            finish_token<Isa>(job, chunk, sums);
        }
    }

private:
    static typename Four::Vector sum_group(const Rows& rows, int64_t group, const float* x) {
        const Vector zero = Isa::broadcast(0);
        Vector sums[group_rows] = {zero, zero, zero, zero};
        const float* values = rows.values + rows.starts[group];
        const uint16_t* masks = rows.masks + group * rows.blocks * group_rows;
        for (int64_t block = 0; block < rows.blocks; ++block, x += Rows::lanes, masks += group_rows) {
            const Vector inputs = Isa::load(x);
#pragma GCC unroll 4
            for (int row = 0; row < group_rows; ++row) {
                const uint32_t mask = masks[row];
                sums[row] = Isa::add_masked(sums[row], mask, values, inputs);
                values += __builtin_popcount(mask);
            }
        }
        typename Four::Vector parts[group_rows];
        for (int row = 0; row < group_rows; ++row) parts[row] = Isa::fold(sums[row]);
        Four::transpose(parts);
        return Four::add(Four::add(parts[0], parts[1]), Four::add(parts[2], parts[3]));
    }
};

}  // namespace stepdown
