// INT8 kernels for AVX-512 without VNNI.
//
// Its products of 8 bits saturate, so levels are widened: to int16, two products at a time, or, where columns stand
// alone, to float32, whose fused multiply-add is the fastest there is for one.
#include "int8_avx512.h"

#include "int8_four.h"
#include "int8_kernel.h"
#include "int8_token.h"
#include "int8_vector.h"

namespace stepdown {
namespace {

struct Pairs {
    static constexpr Unit unit = Unit::pair;
    using Sum = __m512i;
    static Sum zero() { return _mm512_setzero_si512(); }
    static Sum add(Sum sum, __m512i levels, __m512i weight) {
        return _mm512_add_epi32(sum, _mm512_madd_epi16(levels, weight));
    }
    static __m512i integers(Sum sum) { return sum; }
};

struct Singles {
    static constexpr Unit unit = Unit::single;
    using Sum = __m512;
    static Sum zero() { return _mm512_setzero_ps(); }
    static Sum add(Sum sum, __m512i level, __m512i weight) {
        return _mm512_fmadd_ps(_mm512_castsi512_ps(level), _mm512_castsi512_ps(weight), sum);
    }
    static __m512i integers(Sum sum) { return _mm512_cvtps_epi32(sum); }
};

template <class Dot, class FourDot, int rows, int widest>
using Avx512 =
    Kernel<Int8Avx512, Dot, rows, widest, NoGather, OneToken<Int8Avx512, Dot, Int8Four, FourDot, rows, NoGather>>;

}  // namespace

Int8Kernel int8_avx512(const Shape& shape, bool shares_units) {
    if (shape.block_in == 1) {
        return shares_units ? Avx512<Singles, FourSingles, 4, 4>::describe(256)
                            : Avx512<Singles, FourSingles, 1, 4>::describe(128);
    }
    return shares_units ? Avx512<Pairs, FourPairs, 4, 4>::describe(256) : Avx512<Pairs, FourPairs, 1, 4>::describe(256);
}

}  // namespace stepdown
