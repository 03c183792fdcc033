// INT8 kernels for AVX-512 with VNNI: four products of 8 bits at a time, exact in 32 bits.
#include "int8_avx512.h"
#include "int8_four.h"
#include "int8_gather.h"
#include "int8_kernel.h"
#include "int8_token.h"
#include "int8_vector.h"

namespace stepdown {
namespace {

struct Quads {
    static constexpr Unit unit = Unit::quad;
    using Sum = __m512i;
    static Sum zero() { return _mm512_setzero_si512(); }
    static Sum add(Sum sum, __m512i levels, __m512i weight) { return _mm512_dpbusd_epi32(sum, levels, weight); }
    static __m512i integers(Sum sum) { return sum; }
};

struct FourQuads {
    using Sum = __m128i;
    static Sum zero() { return _mm_setzero_si128(); }
    static Sum add(Sum sum, __m128i levels, __m128i weights) { return _mm_dpbusd_epi32(sum, levels, weights); }
    static __m128i integers(Sum sum) { return sum; }
};

template <int rows, class Gather = NoGather>
using Vnni = Kernel<Int8Avx512, Quads, rows, 4, Gather, OneToken<Int8Avx512, Quads, Int8Four, FourQuads, rows, Gather>>;

}  // namespace

Int8Kernel int8_vnni(const Shape& shape, bool shares_units) {
    if (shape.block_out > 1 && shape.block_in == 1) return Vnni<4, QuadGather>::describe(4 * QuadGather::most_entries);
    return shares_units ? Vnni<4>::describe(512) : Vnni<1>::describe(512);
}

}  // namespace stepdown
