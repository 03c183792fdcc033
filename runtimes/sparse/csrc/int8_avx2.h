// Vectors of AVX2 for the INT8 kernels. Included by sources compiled for it.
#pragma once

#include "int8_layer.h"
#include "lanes_avx2.h"

namespace stepdown {
namespace {

struct Int8Avx2 : Avx2Lanes {
    using Float = Vector;
    using Int = __m256i;
    static constexpr int64_t bytes = 32;

    using Avx2Lanes::add;
    using Avx2Lanes::subtract;

    static Float load(const float* from) { return _mm256_loadu_ps(from); }
    static Float load_first(const float* from, int64_t count) { return _mm256_maskload_ps(from, mask(count)); }
    static void store(float* to, Float x) { _mm256_storeu_ps(to, x); }
    static void store_first(float* to, int64_t count, Float x) { _mm256_maskstore_ps(to, mask(count), x); }
    static float least(Float x) {
        const __m128 half = _mm_min_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        const __m128 pair = _mm_min_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_min_ss(pair, _mm_movehdup_ps(pair)));
    }
    static float most(Float x) {
        const __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        const __m128 pair = _mm_max_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_max_ss(pair, _mm_movehdup_ps(pair)));
    }
    static bool is_zero(Float x) {
        return _mm256_movemask_ps(_mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_EQ_OQ)) == 0xff;
    }
    static Int round(Float x) { return _mm256_cvtps_epi32(x); }
    static int32_t round_one(float x) { return _mm_cvtss_si32(_mm_set_ss(x)); }
    static Float to_float(Int x) { return _mm256_cvtepi32_ps(x); }

    static Int load(const char* from) { return _mm256_loadu_si256(reinterpret_cast<const Int*>(from)); }
    static Int load(const int32_t* from) { return _mm256_loadu_si256(reinterpret_cast<const Int*>(from)); }
    static void store(char* to, Int x) { _mm256_storeu_si256(reinterpret_cast<Int*>(to), x); }
    static void store(int32_t* to, Int x) { _mm256_storeu_si256(reinterpret_cast<Int*>(to), x); }
    static Int repeat(int32_t x) { return _mm256_set1_epi32(x); }
    static Int add(Int a, Int b) { return _mm256_add_epi32(a, b); }
    static Int subtract(Int a, Int b) { return _mm256_sub_epi32(a, b); }
    static Int multiply_pairs(Int a, Int b) { return _mm256_madd_epi16(a, b); }

    static Int load_first(const uint32_t* from, int64_t count) {
        return _mm256_maskload_epi32(reinterpret_cast<const int32_t*>(from), mask(count));
    }
    // Units at some places; zeros past the last. The list of places goes on for a vector.
    static Int gather(const char* units, const uint16_t* places, int64_t count) {
        const Int at = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(places)));
        const auto* from = reinterpret_cast<const int32_t*>(units);
        return _mm256_mask_i32gather_epi32(_mm256_setzero_si256(), from, at, mask(count), 4);
    }
    static int32_t total(Int x) {
        const __m128i half = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
        const __m128i pair = _mm_add_epi32(half, _mm_unpackhi_epi64(half, half));
        return _mm_cvtsi128_si32(pair) + _mm_extract_epi32(pair, 1);
    }

    // Levels, each a vector of int32, clamped to 0..255 and put side by side as units.
    template <Unit unit>
    static Int join(const Int* levels) {
        static_assert(unit != Unit::quad, "AVX2 has no exact product of 8 bits");
        if constexpr (unit == Unit::pair) {
            return _mm256_permute4x64_epi64(_mm256_packus_epi32(clamp(levels[0]), clamp(levels[1])), 0xd8);
        } else {
            return _mm256_castps_si256(to_float(clamp(levels[0])));
        }
    }

    static void transpose(Int (&rows)[8]) {
        Int pairs[8];
#pragma GCC unroll 4
        for (int i = 0; i < 8; i += 2) {
            pairs[i] = _mm256_unpacklo_epi32(rows[i], rows[i + 1]);
            pairs[i + 1] = _mm256_unpackhi_epi32(rows[i], rows[i + 1]);
        }
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
            const Int low = _mm256_unpacklo_epi64(pairs[i], pairs[2 + i]);
            const Int high = _mm256_unpackhi_epi64(pairs[i], pairs[2 + i]);
            const Int low_after = _mm256_unpacklo_epi64(pairs[4 + i], pairs[6 + i]);
            const Int high_after = _mm256_unpackhi_epi64(pairs[4 + i], pairs[6 + i]);
            rows[2 * i] = _mm256_permute2x128_si256(low, low_after, 0x20);
            rows[2 * i + 1] = _mm256_permute2x128_si256(high, high_after, 0x20);
            rows[4 + 2 * i] = _mm256_permute2x128_si256(low, low_after, 0x31);
            rows[4 + 2 * i + 1] = _mm256_permute2x128_si256(high, high_after, 0x31);
        }
    }

private:
    static Int mask(int64_t count) {
        return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(count)),
                                  _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    }
    static Int clamp(Int x) {
        return _mm256_min_epi32(_mm256_max_epi32(x, _mm256_setzero_si256()), _mm256_set1_epi32(255));
    }
};

}  // namespace
}  // namespace stepdown
