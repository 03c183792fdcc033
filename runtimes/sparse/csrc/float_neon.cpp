// FP32 for Advanced SIMD: 32 registers, so 32 tokens and two rows at a time, or 16 where four rows share columns.
// Right, and not tuned: the shapes of the tiles follow AVX2's, on no measurement of an ARM core.
#include "float_panel.h"
#include "lanes_neon.h"

namespace stepdown {
namespace {

struct Neon : NeonLanes {
    using Four = Neon;
    static constexpr int32_t depth = 192;
    static constexpr int panel_vectors(bool shared) { return shared ? 4 : 8; }
    template <int vectors>
    static constexpr int rows_at_once(bool shared) {
        return shared || vectors <= 4 ? group_rows : 2;
    }

    static Vector load(const float* x) { return vld1q_f32(x); }
    static void store(float* x, Vector value) { vst1q_f32(x, value); }
    static Vector sum_gathered(const float* values, const uint8_t* columns, int count, const float* x) {
        return sum_gathered_by_fours<Four>(values, columns, count, x);
    }
};

}  // namespace

FloatKernel float_neon(const FloatPattern& pattern) { return choose_float_kernel<Neon>(pattern); }

}  // namespace stepdown
