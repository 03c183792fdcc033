// Attention for AVX2 with FMA: 16 queries at a time, eight sums of 16 registers.
#include "attention_head.h"
#include "lanes_avx2.h"
#include "lanes_fma.h"

namespace stepdown {
namespace {

struct Avx2 : Avx2Lanes {
    using Square = FmaLanes;
    static constexpr int square = 4;
    static constexpr int rows = 4;
};

}  // namespace

AttentionKernel attention_avx2() { return make_attention<Avx2>(); }

}  // namespace stepdown
