// INT8 kernels for Advanced SIMD with dot products: four products of 8 bits at a time, exact in 32 bits.
//
// Both sides of its product are signed, so levels are kept 128 lower, and so is the zero point when the sums are done.
// Right, and not tuned: the shapes of the tiles follow AVX-512's, on no measurement of an ARM core.
#include "int8_kernel.h"
#include "int8_neon.h"
#include "int8_vector.h"

namespace stepdown {
namespace {

struct Int8Dotprod : Int8Neon {
    template <Unit unit>
    static Int join(const Int* levels) {
        static_assert(unit == Unit::quad, "what is not a quad is Int8Neon's");
        const uint16x8_t low = vcombine_u16(vqmovun_s32(levels[0]), vqmovun_s32(levels[1]));
        const uint16x8_t high = vcombine_u16(vqmovun_s32(levels[2]), vqmovun_s32(levels[3]));
        const uint8x16_t unsigned_levels = vcombine_u8(vqmovn_u16(low), vqmovn_u16(high));
        return vreinterpretq_s32_u8(veorq_u8(unsigned_levels, vdupq_n_u8(0x80)));
    }

    // Of a split zero point (int8_layer.h) and a split sum.
    static Int multiply_pairs(Int zero_point, Int sum) {
        const int16x8_t split = vreinterpretq_s16_s32(zero_point);
        const int16x8_t lower = vreinterpretq_s16_s32(vdupq_n_s32(split_zero_point(128)));
        return Int8Neon::multiply_pairs(vreinterpretq_s32_s16(vsubq_s16(split, lower)), sum);
    }
};

struct Quads {
    static constexpr Unit unit = Unit::quad;
    using Sum = int32x4_t;
    static Sum zero() { return vdupq_n_s32(0); }
    static Sum add(Sum sum, int32x4_t levels, int32x4_t weights) {
        return vdotq_s32(sum, vreinterpretq_s8_s32(levels), vreinterpretq_s8_s32(weights));
    }
    static int32x4_t integers(Sum sum) { return sum; }
};

}  // namespace

Int8Kernel int8_dotprod(const Shape& shape, bool shares_units) {
    if (shape.block_in == 1) {
        return shares_units ? Kernel<Int8Neon, NeonSingles, 4, 4>::describe(512)
                            : Kernel<Int8Neon, NeonSingles, 1, 8>::describe(256);
    }
    return shares_units ? Kernel<Int8Dotprod, Quads, 4, 4>::describe(1024)
                        : Kernel<Int8Dotprod, Quads, 1, 8>::describe(1024);
}

}  // namespace stepdown
