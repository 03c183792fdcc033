// What one instruction set offers the FP32 linear layer.
#pragma once

#include <cstdint>

#include "float_pack.h"
#include "masked_rows.h"

namespace stepdown {

struct FloatJob {
    const FloatWeight* weight;
    const MaskedRows<float>* masked;  // the same weight, for run_masked
    Activation activation;
    const float* x;  // [tokens][in]
    float* y;        // [tokens][out]
    int64_t tokens;  // at most panel_tokens
    int64_t first_chunk, last_chunk;
    float* scratch;  // scratch_size(this) floats, at a multiple of 64 bytes
};

struct FloatKernel {
    int32_t lanes;         // tokens of a vector
    int32_t depth;         // inputs of a tile: a panel of them fits the first cache
    int32_t panel_tokens;  // at most, in one call of run
    int64_t (*scratch_size)(const FloatJob& job);
    void (*run)(const FloatJob& job);
    void (*run_masked)(
        const FloatJob& job);  // of one token; null where there is none for the instruction set or pattern
};

FloatKernel float_avx2(const FloatPattern& pattern);
FloatKernel float_avx512(const FloatPattern& pattern);
FloatKernel float_neon(const FloatPattern& pattern);

}  // namespace stepdown
