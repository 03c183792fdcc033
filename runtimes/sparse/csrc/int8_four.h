// Vectors of four for the INT8 kernels of one token, on x86 with AVX2. Included by sources compiled for it.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace stepdown {
namespace {

struct Int8Four {
    using Int = __m128i;

    template <class T>
    static Int load(const T* from) {
        return _mm_loadu_si128(reinterpret_cast<const Int*>(from));
    }
    static void store(int32_t* to, Int x) { _mm_storeu_si128(reinterpret_cast<Int*>(to), x); }
    static Int add(Int a, Int b) { return _mm_add_epi32(a, b); }
    // The unit at an address, four times.
    static Int repeat(const char* unit) {
        int32_t word;
        std::memcpy(&word, unit, sizeof word);
        return _mm_set1_epi32(word);
    }
};

struct FourPairs {
    using Sum = __m128i;
    static Sum zero() { return _mm_setzero_si128(); }
    static Sum add(Sum sum, __m128i levels, __m128i weights) {
        return _mm_add_epi32(sum, _mm_madd_epi16(levels, weights));
    }
    static __m128i integers(Sum sum) { return sum; }
};

struct FourSingles {
    using Sum = __m128;
    static Sum zero() { return _mm_setzero_ps(); }
    static Sum add(Sum sum, __m128i levels, __m128i weights) {
        return _mm_fmadd_ps(_mm_castsi128_ps(levels), _mm_castsi128_ps(weights), sum);
    }
    static __m128i integers(Sum sum) { return _mm_cvtps_epi32(sum); }
};

}  // namespace
}  // namespace stepdown
