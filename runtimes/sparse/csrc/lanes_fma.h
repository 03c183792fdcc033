// Four floats at a time, for any x86 with FMA: what a single token needs (float_token.h).
#pragma once

#include <immintrin.h>

namespace stepdown {
namespace {

struct FmaLanes {
    using Vector = __m128;

    static Vector broadcast(float x) { return _mm_set1_ps(x); }
    static Vector add(Vector a, Vector b) { return _mm_add_ps(a, b); }
    static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm_fmadd_ps(a, b, c); }
    static Vector load_unaligned(const float* x) { return _mm_loadu_ps(x); }
    static void store_unaligned(float* x, Vector value) { _mm_storeu_ps(x, value); }
    static void transpose(Vector (&rows)[4]) { _MM_TRANSPOSE4_PS(rows[0], rows[1], rows[2], rows[3]); }
};

}  // namespace
}  // namespace stepdown
