// INT8 for AVX-512 with VNNI and VBMI2, which spreads packed bytes over a vector: one token reads no zeros. All else
// is VNNI's.
#include "int8_avx512.h"
#include "int8_finish.h"
#include "int8_vector.h"

namespace stepdown {
namespace {

using Rows = MaskedRows<int8_t>;

// Spread inside one register: a new one would wait for what it held before (Zen 5; four times as long), which no
// intrinsic rules out.
__m512i spread(uint64_t mask, const int8_t* values) {
    __m512i packed = _mm512_loadu_si512(values);
    asm("vpexpandb %0, %0%{%1%}%{z%}" : "+v"(packed) : "Yk"(mask));
    return packed;
}

void sum_group(const Rows& rows, int64_t group, const char* levels, int32_t* sums) {
    __m512i parts[masked_group] = {};
    const int8_t* values = rows.values + rows.starts[group];
    const uint64_t* masks = rows.masks + group * rows.blocks * masked_group;
    for (int64_t block = 0; block < rows.blocks; ++block, levels += Rows::lanes, masks += masked_group) {
        const __m512i now = _mm512_loadu_si512(levels);
#pragma GCC unroll 4
        for (int row = 0; row < masked_group; ++row) {
            parts[row] = _mm512_dpbusd_epi32(parts[row], now, spread(masks[row], values));
            values += __builtin_popcountll(masks[row]);
        }
    }
    for (int row = 0; row < masked_group; ++row) sums[row] = Int8Avx512::total(parts[row]);
}

void multiply_masked(const Int8Layer& layer, const Rows& rows, const char* panel, int64_t strip, float* y) {
    constexpr int64_t groups = strip_rows / masked_group;
    int32_t sums[strip_rows];
    for (int64_t group = 0; group < groups; ++group) {
        sum_group(rows, strip * groups + group, panel, sums + group * masked_group);
    }
    finish_strip<Int8Avx512>(layer, sums, panel_tail(layer, panel, 1), 1, 1, strip, y);
}

}  // namespace

Int8Kernel int8_vbmi2(const Shape& shape, bool shares_units) {
    Int8Kernel kernel = int8_vnni(shape, shares_units);
    if (shape.block_out == 1 && shape.block_in == 1) kernel.multiply_masked = multiply_masked;
    return kernel;
}

}  // namespace stepdown
