// INT8 kernels for AVX2.
//
// Its products of 8 bits saturate, so levels are widened: to int16, two products at a time, or, where columns stand
// alone, to float32, whose fused multiply-add is the fastest there is for one.
#include "int8_avx2.h"

#include "int8_four.h"
#include "int8_kernel.h"
#include "int8_token.h"
#include "int8_vector.h"

namespace stepdown {
namespace {

struct Pairs {
    static constexpr Unit unit = Unit::pair;
    using Sum = __m256i;
    static Sum zero() { return _mm256_setzero_si256(); }
    static Sum add(Sum sum, __m256i levels, __m256i weight) {
        return _mm256_add_epi32(sum, _mm256_madd_epi16(levels, weight));
    }
    static __m256i integers(Sum sum) { return sum; }
};

struct Singles {
    static constexpr Unit unit = Unit::single;
    using Sum = __m256;
    static Sum zero() { return _mm256_setzero_ps(); }
    static Sum add(Sum sum, __m256i level, __m256i weight) {
        return _mm256_fmadd_ps(_mm256_castsi256_ps(level), _mm256_castsi256_ps(weight), sum);
    }
    static __m256i integers(Sum sum) { return _mm256_cvtps_epi32(sum); }
};

template <class Dot, class FourDot, int rows, int widest>
using Avx2 = Kernel<Int8Avx2, Dot, rows, widest, NoGather, OneToken<Int8Avx2, Dot, Int8Four, FourDot, rows, NoGather>>;

}  // namespace

Int8Kernel int8_avx2(const Shape& shape, bool shares_units) {
    if (shape.block_in == 1) {
        return shares_units ? Avx2<Singles, FourSingles, 4, 3>::describe(256)
                            : Avx2<Singles, FourSingles, 1, 4>::describe(256);
    }
    return shares_units ? Avx2<Pairs, FourPairs, 4, 2>::describe(1024) : Avx2<Pairs, FourPairs, 1, 4>::describe(512);
}

}  // namespace stepdown
