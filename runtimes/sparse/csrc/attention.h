// Attention: what each token of a text takes from its tokens, for all heads.
//
// In: queries, keys and values as the linears before leave them, [text][token][head][size], and which keys are padding.
// Out: softmax(scale q k^T) v in the same form. Padding is never looked at: it weighs nothing, whatever it holds, and
// costs nothing. A text of padding alone attends to all of it. Each sum is taken over the keys, or the numbers of a
// head, from first to last, so the bits are the same on every CPU. A score of NaN or plus infinity answers NaN.
#pragma once

#include <cstdint>

#include "linear.h"

namespace stepdown {

// Some queries of one text, and all its keys, of one head.
struct AttentionJob {
    int64_t queries, keys, size;
    int64_t stride;          // from a token to the next, in all four
    const float *q, *k, *v;  // [queries or keys][size]
    const uint8_t* seen;     // [keys], 0 where not; null: all are
    float scale;
    float* y;        // [queries][size]
    float* scratch;  // scratch_size floats, at a multiple of 64 bytes
};

struct AttentionKernel {
    int64_t (*scratch_size)(int64_t keys, int64_t size);
    void (*run)(const AttentionJob&);
};

AttentionKernel attention_scalar();
AttentionKernel attention_avx2();
AttentionKernel attention_avx512();
AttentionKernel attention_neon();

// What a node gets when a model runs; anywhere in memory.
struct AttentionTexts {
    int64_t batch, queries, keys;  // all above 0
    const float *q, *k, *v;        // [batch][queries or keys][heads][size]
    const uint8_t* seen;           // [batch][keys], 0 where not; null: all are
    float* y;                      // [batch][queries][heads][size]
};

class Attention {
public:
    // scale is finite and above 0.
    Attention(int64_t heads, int64_t size, float scale, Isa);

    // Throws nothing but std::bad_alloc.
    void run(const AttentionTexts&, const Parallel&) const;

private:
    int64_t heads_, size_;
    float scale_;
    int64_t threads_;
    AttentionKernel kernel_;
};

}  // namespace stepdown
