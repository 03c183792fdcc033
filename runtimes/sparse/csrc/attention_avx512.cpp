// Attention for AVX-512: 32 queries at a time, 16 sums in registers.
#include "attention_head.h"
#include "lanes_avx512.h"
#include "lanes_fma.h"

namespace stepdown {
namespace {

struct Avx512 : Avx512Lanes {
    using Square = FmaLanes;
    static constexpr int square = 4;
    static constexpr int rows = 8;
};

}  // namespace

AttentionKernel attention_avx512() { return make_attention<Avx512>(); }

}  // namespace stepdown
