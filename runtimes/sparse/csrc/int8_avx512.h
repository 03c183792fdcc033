// Vectors of AVX-512 for the INT8 kernels. Included by sources compiled for it.
#pragma once

#include "int8_layer.h"
#include "lanes_avx512.h"

namespace stepdown {
namespace {

struct Int8Avx512 : Avx512Lanes {
    using Float = Vector;
    using Int = __m512i;
    static constexpr int64_t bytes = 64;

    using Avx512Lanes::add;
    using Avx512Lanes::subtract;

    static Float load(const float* from) { return _mm512_loadu_ps(from); }
    static Float load_first(const float* from, int64_t count) { return _mm512_maskz_loadu_ps(mask(count), from); }
    static void store(float* to, Float x) { _mm512_storeu_ps(to, x); }
    static void store_first(float* to, int64_t count, Float x) { _mm512_mask_storeu_ps(to, mask(count), x); }
    static float least(Float x) { return _mm512_reduce_min_ps(x); }
    static float most(Float x) { return _mm512_reduce_max_ps(x); }
    static bool is_zero(Float x) { return _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_EQ_OQ) == 0xffff; }
    static Int round(Float x) { return _mm512_cvtps_epi32(x); }
    static int32_t round_one(float x) { return _mm_cvtss_si32(_mm_set_ss(x)); }
    static Float to_float(Int x) { return _mm512_cvtepi32_ps(x); }

    static Int load(const char* from) { return _mm512_loadu_si512(from); }
    static Int load(const int32_t* from) { return _mm512_loadu_si512(from); }
    static void store(char* to, Int x) { _mm512_storeu_si512(to, x); }
    static void store(int32_t* to, Int x) { _mm512_storeu_si512(to, x); }
    static Int repeat(int32_t x) { return _mm512_set1_epi32(x); }
    static Int add(Int a, Int b) { return _mm512_add_epi32(a, b); }
    static Int subtract(Int a, Int b) { return _mm512_sub_epi32(a, b); }
    static Int multiply_pairs(Int a, Int b) { return _mm512_madd_epi16(a, b); }

    static Int load_first(const uint32_t* from, int64_t count) { return _mm512_maskz_loadu_epi32(mask(count), from); }
    // Units at some places; zeros past the last.
    static Int gather(const char* units, const uint16_t* places, int64_t count) {
        const __m512i at = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask(count), places));
        return _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), mask(count), at, units, 4);
    }
    static int32_t total(Int x) { return _mm512_reduce_add_epi32(x); }

    // Levels, each a vector of int32, clamped to 0..255 and put side by side as units.
    template <Unit unit>
    static Int join(const Int* levels) {
        if constexpr (unit == Unit::quad) {
            const Int packed = _mm512_packus_epi16(_mm512_packus_epi32(levels[0], levels[1]),
                                                   _mm512_packus_epi32(levels[2], levels[3]));
            const Int order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
            return _mm512_permutexvar_epi32(order, packed);
        } else if constexpr (unit == Unit::pair) {
            const Int packed = _mm512_packus_epi32(clamp(levels[0]), clamp(levels[1]));
            const Int order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
            return _mm512_permutexvar_epi64(order, packed);
        } else {
            return _mm512_castps_si512(to_float(clamp(levels[0])));
        }
    }

    static void transpose(Int (&rows)[16]) {
        Int pairs[16], quads[16];
#pragma GCC unroll 8
        for (int i = 0; i < 16; i += 2) {
            pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
            pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
        }
#pragma GCC unroll 8
        for (int i = 0; i < 16; i += 4) {
            quads[i] = _mm512_unpacklo_epi64(pairs[i], pairs[i + 2]);
            quads[i + 1] = _mm512_unpackhi_epi64(pairs[i], pairs[i + 2]);
            quads[i + 2] = _mm512_unpacklo_epi64(pairs[i + 1], pairs[i + 3]);
            quads[i + 3] = _mm512_unpackhi_epi64(pairs[i + 1], pairs[i + 3]);
        }
#pragma GCC unroll 8
        for (int i = 0; i < 4; ++i) {
            const Int a = _mm512_shuffle_i32x4(quads[i], quads[4 + i], 0x88);
            const Int b = _mm512_shuffle_i32x4(quads[i], quads[4 + i], 0xdd);
            const Int c = _mm512_shuffle_i32x4(quads[8 + i], quads[12 + i], 0x88);
            const Int d = _mm512_shuffle_i32x4(quads[8 + i], quads[12 + i], 0xdd);
            rows[i] = _mm512_shuffle_i32x4(a, c, 0x88);
            rows[4 + i] = _mm512_shuffle_i32x4(b, d, 0x88);
            rows[8 + i] = _mm512_shuffle_i32x4(a, c, 0xdd);
            rows[12 + i] = _mm512_shuffle_i32x4(b, d, 0xdd);
        }
    }

private:
    static __mmask16 mask(int64_t count) { return static_cast<__mmask16>((1u << count) - 1); }
    static Int clamp(Int x) {
        return _mm512_min_epi32(_mm512_max_epi32(x, _mm512_setzero_si512()), _mm512_set1_epi32(255));
    }
};

}  // namespace
}  // namespace stepdown
