// FP32 for AVX-512: 64 tokens a panel, 16 sums in registers.
#include "float_masked.h"
#include "float_panel.h"
#include "lanes_avx512.h"
#include "lanes_fma.h"

namespace stepdown {
namespace {

struct Avx512 : Avx512Lanes {
    using Four = FmaLanes;
    // 128 inputs of 64 tokens are 33 KiB, of a first cache of 48 or 32.
    static constexpr int32_t depth = 128;
    static constexpr int panel_vectors(bool) { return 4; }
    template <int vectors>
    static constexpr int rows_at_once(bool) {
        return group_rows;
    }

    static Vector load(const float* x) { return _mm512_load_ps(x); }
    static void store(float* x, Vector value) { _mm512_store_ps(x, value); }

    static __m128 sum_gathered(const float* values, const uint8_t* columns, int count, const float* x) {
        Vector sum = _mm512_setzero_ps();
        for (int at = 0; at < count; at += lanes) {
            const __mmask16 there = count - at < lanes ? first(count - at) : 0xffff;
            const __m512i places = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(there, columns + at));
            const Vector inputs = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), there, places, x, sizeof(float));
            sum = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(there, values + at), inputs, sum);
        }
        return fold(sum);
    }

    static __m128 fold(Vector sum) {
        const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(sum), _mm512_extractf32x8_ps(sum, 1));
        return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    }

    // Spread inside one register, whose other lanes the mask leaves out: a new one would wait for what it held before
    // (Zen 5; four times as long).
    static Vector add_masked(Vector sum, uint32_t mask, const float* values, Vector x) {
        const auto there = static_cast<__mmask16>(mask);
        const Vector packed = _mm512_loadu_ps(values);
        return _mm512_mask3_fmadd_ps(_mm512_mask_expand_ps(packed, there, packed), x, sum, there);
    }

    // Pairs, then fours inside each quarter of the vectors, then the quarters.
    static void transpose(Vector (&rows)[lanes]) {
        Vector fours[lanes];
        for (int at = 0; at < lanes; at += 4) {
            const Vector low01 = _mm512_unpacklo_ps(rows[at], rows[at + 1]);
            const Vector high01 = _mm512_unpackhi_ps(rows[at], rows[at + 1]);
            const Vector low23 = _mm512_unpacklo_ps(rows[at + 2], rows[at + 3]);
            const Vector high23 = _mm512_unpackhi_ps(rows[at + 2], rows[at + 3]);
            fours[at] = _mm512_shuffle_ps(low01, low23, 0x44);
            fours[at + 1] = _mm512_shuffle_ps(low01, low23, 0xee);
            fours[at + 2] = _mm512_shuffle_ps(high01, high23, 0x44);
            fours[at + 3] = _mm512_shuffle_ps(high01, high23, 0xee);
        }
        for (int at = 0; at < 4; ++at) {
            const Vector even01 = _mm512_shuffle_f32x4(fours[at], fours[at + 4], 0x88);
            const Vector odd01 = _mm512_shuffle_f32x4(fours[at], fours[at + 4], 0xdd);
            const Vector even23 = _mm512_shuffle_f32x4(fours[at + 8], fours[at + 12], 0x88);
            const Vector odd23 = _mm512_shuffle_f32x4(fours[at + 8], fours[at + 12], 0xdd);
            rows[at] = _mm512_shuffle_f32x4(even01, even23, 0x88);
            rows[at + 4] = _mm512_shuffle_f32x4(odd01, odd23, 0x88);
            rows[at + 8] = _mm512_shuffle_f32x4(even01, even23, 0xdd);
            rows[at + 12] = _mm512_shuffle_f32x4(odd01, odd23, 0xdd);
        }
    }
};

}  // namespace

FloatKernel float_avx512(const FloatPattern& pattern) {
    FloatKernel kernel = choose_float_kernel<Avx512>(pattern);
    if (!pattern.shared && pattern.width == 1) kernel.run_masked = FloatMasked<Avx512>::run;
    return kernel;
}

}  // namespace stepdown
