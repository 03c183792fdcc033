// Attention for Advanced SIMD: eight queries at a time, 16 sums of 32 registers. Right, and not tuned.
#include "attention_head.h"
#include "lanes_neon.h"

namespace stepdown {
namespace {

struct Neon : NeonLanes {
    using Square = NeonLanes;
    static constexpr int square = lanes;
    static constexpr int rows = 8;
};

}  // namespace

AttentionKernel attention_neon() { return make_attention<Neon>(); }

}  // namespace stepdown
