// FP32 for AVX2 with FMA: 16 registers, so 32 tokens and two rows at a time, or 24 tokens where four rows share
// columns.
#include "float_panel.h"
#include "lanes_avx2.h"
#include "lanes_fma.h"

namespace stepdown {
namespace {

struct Avx2 : Avx2Lanes {
    using Four = FmaLanes;
    // 192 inputs of 32 tokens are 24.5 KiB, of a first cache of 32.
    static constexpr int32_t depth = 192;
    static constexpr int panel_vectors(bool shared) { return shared ? 3 : 4; }
    template <int vectors>
    static constexpr int rows_at_once(bool shared) {
        return shared || vectors <= 2 ? group_rows : 2;
    }

    static Vector load(const float* x) { return _mm256_load_ps(x); }
    static void store(float* x, Vector value) { _mm256_store_ps(x, value); }

    // Four loads, not a gather: many CPUs gather one by one, and slowly.
    static __m128 sum_gathered(const float* values, const uint8_t* columns, int count, const float* x) {
        __m128 sums[2] = {};
        int at = 0;
        for (; at + 8 <= count; at += 8) {
            sums[0] = _mm_fmadd_ps(_mm_loadu_ps(values + at), load_four(x, columns + at), sums[0]);
            sums[1] = _mm_fmadd_ps(_mm_loadu_ps(values + at + 4), load_four(x, columns + at + 4), sums[1]);
        }
        if (at < count) sums[0] = _mm_fmadd_ps(_mm_loadu_ps(values + at), load_four(x, columns + at), sums[0]);
        return _mm_add_ps(sums[0], sums[1]);
    }

    // Pairs, then fours inside each half of the vectors, then the halves.
    static void transpose(Vector (&rows)[lanes]) {
        Vector fours[lanes];
        for (int at = 0; at < lanes; at += 4) {
            const Vector low01 = _mm256_unpacklo_ps(rows[at], rows[at + 1]);
            const Vector high01 = _mm256_unpackhi_ps(rows[at], rows[at + 1]);
            const Vector low23 = _mm256_unpacklo_ps(rows[at + 2], rows[at + 3]);
            const Vector high23 = _mm256_unpackhi_ps(rows[at + 2], rows[at + 3]);
            fours[at] = _mm256_shuffle_ps(low01, low23, 0x44);
            fours[at + 1] = _mm256_shuffle_ps(low01, low23, 0xee);
            fours[at + 2] = _mm256_shuffle_ps(high01, high23, 0x44);
            fours[at + 3] = _mm256_shuffle_ps(high01, high23, 0xee);
        }
        for (int at = 0; at < 4; ++at) {
            rows[at] = _mm256_permute2f128_ps(fours[at], fours[at + 4], 0x20);
            rows[at + 4] = _mm256_permute2f128_ps(fours[at], fours[at + 4], 0x31);
        }
    }

private:
    static __m128 load_four(const float* x, const uint8_t* columns) {
        return _mm_setr_ps(x[columns[0]], x[columns[1]], x[columns[2]], x[columns[3]]);
    }
};

}  // namespace

FloatKernel float_avx2(const FloatPattern& pattern) { return choose_float_kernel<Avx2>(pattern); }

}  // namespace stepdown
