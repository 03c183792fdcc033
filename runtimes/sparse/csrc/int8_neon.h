// Vectors of Advanced SIMD for the INT8 kernels. Included by sources compiled for it.
#pragma once

#include "int8_layer.h"
#include "lanes_neon.h"

namespace stepdown {
namespace {

struct Int8Neon : NeonLanes {
    using Float = Vector;
    using Int = int32x4_t;
    static constexpr int64_t bytes = 16;

    using NeonLanes::add;
    using NeonLanes::subtract;
    using NeonLanes::transpose;

    static Float load(const float* from) { return vld1q_f32(from); }
    static Float load_first(const float* from, int64_t count) { return load_part(from, count); }
    static void store(float* to, Float x) { vst1q_f32(to, x); }
    static void store_first(float* to, int64_t count, Float x) { store_part(to, x, count); }
    static float least(Float x) { return vminvq_f32(x); }
    static float most(Float x) { return vmaxvq_f32(x); }
    static bool is_zero(Float x) { return vminvq_u32(vceqzq_f32(x)) != 0; }
    static Int round(Float x) { return vcvtnq_s32_f32(x); }
    static int32_t round_one(float x) { return vcvtns_s32_f32(x); }
    static Float to_float(Int x) { return vcvtq_f32_s32(x); }

    static Int load(const char* from) { return vreinterpretq_s32_s8(vld1q_s8(reinterpret_cast<const int8_t*>(from))); }
    static Int load(const int32_t* from) { return vld1q_s32(from); }
    static void store(char* to, Int x) { vst1q_s8(reinterpret_cast<int8_t*>(to), vreinterpretq_s8_s32(x)); }
    static void store(int32_t* to, Int x) { vst1q_s32(to, x); }
    static Int repeat(int32_t x) { return vdupq_n_s32(x); }
    static Int add(Int a, Int b) { return vaddq_s32(a, b); }
    static Int subtract(Int a, Int b) { return vsubq_s32(a, b); }
    static Int multiply_pairs(Int a, Int b) {
        const int16x8_t left = vreinterpretq_s16_s32(a), right = vreinterpretq_s16_s32(b);
        return vpaddq_s32(vmull_s16(vget_low_s16(left), vget_low_s16(right)), vmull_high_s16(left, right));
    }

    // Levels, each a vector of int32, clamped to 0..255 and put side by side as units.
    template <Unit unit>
    static Int join(const Int* levels) {
        static_assert(unit != Unit::quad, "Advanced SIMD has no product of 8 bits that sums four");
        if constexpr (unit == Unit::pair) {
            return vreinterpretq_s32_s16(vcombine_s16(vqmovn_s32(clamp(levels[0])), vqmovn_s32(clamp(levels[1]))));
        } else {
            return vreinterpretq_s32_f32(to_float(clamp(levels[0])));
        }
    }

    static void transpose(Int (&rows)[4]) {
        Float floats[4];
        for (int at = 0; at < 4; ++at) floats[at] = vreinterpretq_f32_s32(rows[at]);
        NeonLanes::transpose(floats);
        for (int at = 0; at < 4; ++at) rows[at] = vreinterpretq_s32_f32(floats[at]);
    }

private:
    static Int clamp(Int x) { return vminq_s32(vmaxq_s32(x, vdupq_n_s32(0)), vdupq_n_s32(255)); }
};

// Products of single columns, in float32: sums of so few integers are exact there.
struct NeonSingles {
    static constexpr Unit unit = Unit::single;
    using Sum = float32x4_t;
    static Sum zero() { return vdupq_n_f32(0); }
    static Sum add(Sum sum, int32x4_t level, int32x4_t weight) {
        return vfmaq_f32(sum, vreinterpretq_f32_s32(level), vreinterpretq_f32_s32(weight));
    }
    static int32x4_t integers(Sum sum) { return vcvtnq_s32_f32(sum); }
};

}  // namespace
}  // namespace stepdown
