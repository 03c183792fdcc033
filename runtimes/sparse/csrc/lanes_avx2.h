// Eight floats at a time, for AVX2 with FMA: the operations lanes_scalar.h describes, bit for bit.
#pragma once

#include <immintrin.h>

namespace stepdown {
namespace {

struct Avx2Lanes {
    using Vector = __m256;
    static constexpr int lanes = 8;

    static Vector broadcast(float x) { return _mm256_set1_ps(x); }
    static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
    static Vector subtract(Vector a, Vector b) { return _mm256_sub_ps(a, b); }
    static Vector multiply(Vector a, Vector b) { return _mm256_mul_ps(a, b); }
    static Vector divide(Vector a, Vector b) { return _mm256_div_ps(a, b); }
    static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
    static Vector multiply_subtract(Vector a, Vector b, Vector c) { return _mm256_fmsub_ps(a, b, c); }
    static Vector min(Vector a, Vector b) { return _mm256_min_ps(a, b); }
    static Vector max(Vector a, Vector b) { return _mm256_max_ps(a, b); }
    static Vector abs(Vector x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
    static Vector where_negative(Vector sign, Vector yes, Vector no) { return _mm256_blendv_ps(no, yes, sign); }
    static Vector exponent_from_lowest_bits(Vector x) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x), 23));
    }

    static Vector load_unaligned(const float* x) { return _mm256_loadu_ps(x); }
    static void store_unaligned(float* x, Vector value) { _mm256_storeu_ps(x, value); }
    static Vector load_first(const float* x, int count) { return _mm256_maskload_ps(x, first(count)); }
    static void store_first(float* x, Vector value, int count) { _mm256_maskstore_ps(x, first(count), value); }

private:
    static __m256i first(int count) {
        return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    }
};

}  // namespace
}  // namespace stepdown
