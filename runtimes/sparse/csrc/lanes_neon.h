// Four floats at a time, for Advanced SIMD: the operations lanes_scalar.h describes, bit for bit.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace stepdown {
namespace {

struct NeonLanes {
    using Vector = float32x4_t;
    static constexpr int lanes = 4;

    static Vector broadcast(float x) { return vdupq_n_f32(x); }
    static Vector add(Vector a, Vector b) { return vaddq_f32(a, b); }
    static Vector subtract(Vector a, Vector b) { return vsubq_f32(a, b); }
    static Vector multiply(Vector a, Vector b) { return vmulq_f32(a, b); }
    static Vector divide(Vector a, Vector b) { return vdivq_f32(a, b); }
    static Vector multiply_add(Vector a, Vector b, Vector c) { return vfmaq_f32(c, a, b); }
    static Vector multiply_subtract(Vector a, Vector b, Vector c) { return vfmaq_f32(vnegq_f32(c), a, b); }
    // Not vminq and vmaxq: those answer NaN where either is.
    static Vector min(Vector a, Vector b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
    static Vector max(Vector a, Vector b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
    static Vector abs(Vector x) { return vabsq_f32(x); }
    static Vector where_negative(Vector sign, Vector yes, Vector no) {
        return vbslq_f32(vreinterpretq_u32_s32(vshrq_n_s32(vreinterpretq_s32_f32(sign), 31)), yes, no);
    }
    static Vector exponent_from_lowest_bits(Vector x) {
        return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(x), 23));
    }

    // The first count of four numbers; what is missing is 0.
    static Vector load_part(const float* x, int64_t count) {
        float numbers[lanes] = {};
        for (int64_t at = 0; at < count; ++at) numbers[at] = x[at];
        return vld1q_f32(numbers);
    }
    static void store_part(float* x, Vector value, int64_t count) {
        float numbers[lanes];
        vst1q_f32(numbers, value);
        for (int64_t at = 0; at < count; ++at) x[at] = numbers[at];
    }

    static Vector load_unaligned(const float* x) { return vld1q_f32(x); }
    static void store_unaligned(float* x, Vector value) { vst1q_f32(x, value); }
    static Vector load_first(const float* x, int count) { return load_part(x, count); }
    static void store_first(float* x, Vector value, int count) { store_part(x, value, count); }

    // Pairs, then halves.
    static void transpose(Vector (&rows)[lanes]) {
        const float64x2_t even01 = vreinterpretq_f64_f32(vtrn1q_f32(rows[0], rows[1]));
        const float64x2_t odd01 = vreinterpretq_f64_f32(vtrn2q_f32(rows[0], rows[1]));
        const float64x2_t even23 = vreinterpretq_f64_f32(vtrn1q_f32(rows[2], rows[3]));
        const float64x2_t odd23 = vreinterpretq_f64_f32(vtrn2q_f32(rows[2], rows[3]));
        rows[0] = vreinterpretq_f32_f64(vtrn1q_f64(even01, even23));
        rows[1] = vreinterpretq_f32_f64(vtrn1q_f64(odd01, odd23));
        rows[2] = vreinterpretq_f32_f64(vtrn2q_f64(even01, even23));
        rows[3] = vreinterpretq_f32_f64(vtrn2q_f64(odd01, odd23));
    }
};

}  // namespace
}  // namespace stepdown
