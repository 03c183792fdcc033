// Sixteen floats at a time, for AVX-512: the operations lanes_scalar.h describes, bit for bit.
#pragma once

// GCC 12 takes its own _mm512_undefined_ps() for a mistake of ours (gcc.gnu.org/PR105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

namespace stepdown {
namespace {

struct Avx512Lanes {
    using Vector = __m512;
    static constexpr int lanes = 16;

    static Vector broadcast(float x) { return _mm512_set1_ps(x); }
    static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
    static Vector subtract(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
    static Vector multiply(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
    static Vector divide(Vector a, Vector b) { return _mm512_div_ps(a, b); }
    static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
    static Vector multiply_subtract(Vector a, Vector b, Vector c) { return _mm512_fmsub_ps(a, b, c); }
    static Vector min(Vector a, Vector b) { return _mm512_min_ps(a, b); }
    static Vector max(Vector a, Vector b) { return _mm512_max_ps(a, b); }
    static Vector abs(Vector x) { return _mm512_abs_ps(x); }
    static Vector where_negative(Vector sign, Vector yes, Vector no) {
        return _mm512_mask_blend_ps(_mm512_movepi32_mask(_mm512_castps_si512(sign)), no, yes);
    }
    static Vector exponent_from_lowest_bits(Vector x) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(x), 23));
    }

    static Vector load_unaligned(const float* x) { return _mm512_loadu_ps(x); }
    static void store_unaligned(float* x, Vector value) { _mm512_storeu_ps(x, value); }
    static Vector load_first(const float* x, int count) { return _mm512_maskz_loadu_ps(first(count), x); }
    static void store_first(float* x, Vector value, int count) { _mm512_mask_storeu_ps(x, first(count), value); }

protected:
    static __mmask16 first(int count) { return static_cast<__mmask16>((1u << count) - 1); }
};

}  // namespace
}  // namespace stepdown
