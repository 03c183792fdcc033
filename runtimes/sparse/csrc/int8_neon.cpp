// INT8 kernels for Advanced SIMD without dot products: levels widened to int16, or to float32 where columns stand
// alone. Right, and not tuned: the shapes of the tiles follow AVX2's, on no measurement of an ARM core.
#include "int8_neon.h"

#include "int8_kernel.h"
#include "int8_vector.h"

namespace stepdown {
namespace {

// Two sums, of the lower and the upper four products: what belongs together is added once, at the end.
struct Pairs {
    static constexpr Unit unit = Unit::pair;
    struct Sum {
        int32x4_t low, high;
    };
    static Sum zero() { return {vdupq_n_s32(0), vdupq_n_s32(0)}; }
    static Sum add(Sum sum, int32x4_t levels, int32x4_t weights) {
        const int16x8_t level = vreinterpretq_s16_s32(levels), weight = vreinterpretq_s16_s32(weights);
        return {vmlal_s16(sum.low, vget_low_s16(level), vget_low_s16(weight)), vmlal_high_s16(sum.high, level, weight)};
    }
    static int32x4_t integers(Sum sum) { return vpaddq_s32(sum.low, sum.high); }
};

}  // namespace

Int8Kernel int8_neon(const Shape& shape, bool shares_units) {
    if (shape.block_in == 1) {
        return shares_units ? Kernel<Int8Neon, NeonSingles, 4, 4>::describe(512)
                            : Kernel<Int8Neon, NeonSingles, 1, 8>::describe(256);
    }
    return shares_units ? Kernel<Int8Neon, Pairs, 4, 2>::describe(1024) : Kernel<Int8Neon, Pairs, 1, 8>::describe(512);
}

}  // namespace stepdown
