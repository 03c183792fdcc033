// Quads put together from any four columns (AVX-512). A panel is kept by column for that: [column][token], one byte
// each.
//
// The order of the tokens of a column is the one that interleaving turns back into the natural one: with v vectors per
// quad, byte 16 l + 4 k + j of a column is token 4 v k + 4 l + j (l < v, k < 4, j < 4).
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace stepdown {
namespace {

// A vector with 16 bytes for each 16 tokens of a panel.
template <int vectors>
struct Bytes;

template <>
struct Bytes<4> {
    using Type = __m512i;
    static Type load(const char* from) { return _mm512_loadu_si512(from); }
    static void store(char* to, Type x) { _mm512_storeu_si512(to, x); }
    static Type low8(Type a, Type b) { return _mm512_unpacklo_epi8(a, b); }
    static Type high8(Type a, Type b) { return _mm512_unpackhi_epi8(a, b); }
    static Type low16(Type a, Type b) { return _mm512_unpacklo_epi16(a, b); }
    static Type high16(Type a, Type b) { return _mm512_unpackhi_epi16(a, b); }
    static Type low32(Type a, Type b) { return _mm512_unpacklo_epi32(a, b); }
    static Type high32(Type a, Type b) { return _mm512_unpackhi_epi32(a, b); }
    static Type low64(Type a, Type b) { return _mm512_unpacklo_epi64(a, b); }
    static Type high64(Type a, Type b) { return _mm512_unpackhi_epi64(a, b); }
    static Type turn4x4(Type x) {
        return _mm512_shuffle_epi8(
            x, _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)));
    }
};
template <>
struct Bytes<2> {
    using Type = __m256i;
    static Type load(const char* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }
    static void store(char* to, Type x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), x); }
    static Type low8(Type a, Type b) { return _mm256_unpacklo_epi8(a, b); }
    static Type high8(Type a, Type b) { return _mm256_unpackhi_epi8(a, b); }
    static Type low16(Type a, Type b) { return _mm256_unpacklo_epi16(a, b); }
    static Type high16(Type a, Type b) { return _mm256_unpackhi_epi16(a, b); }
    static Type low32(Type a, Type b) { return _mm256_unpacklo_epi32(a, b); }
    static Type high32(Type a, Type b) { return _mm256_unpackhi_epi32(a, b); }
    static Type low64(Type a, Type b) { return _mm256_unpacklo_epi64(a, b); }
    static Type high64(Type a, Type b) { return _mm256_unpackhi_epi64(a, b); }
    static Type turn4x4(Type x) {
        return _mm256_shuffle_epi8(
            x, _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)));
    }
};
template <>
struct Bytes<1> {
    using Type = __m128i;
    static Type load(const char* from) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); }
    static void store(char* to, Type x) { _mm_storeu_si128(reinterpret_cast<__m128i*>(to), x); }
    static Type low8(Type a, Type b) { return _mm_unpacklo_epi8(a, b); }
    static Type high8(Type a, Type b) { return _mm_unpackhi_epi8(a, b); }
    static Type low16(Type a, Type b) { return _mm_unpacklo_epi16(a, b); }
    static Type high16(Type a, Type b) { return _mm_unpackhi_epi16(a, b); }
    static Type low32(Type a, Type b) { return _mm_unpacklo_epi32(a, b); }
    static Type high32(Type a, Type b) { return _mm_unpackhi_epi32(a, b); }
    static Type low64(Type a, Type b) { return _mm_unpacklo_epi64(a, b); }
    static Type high64(Type a, Type b) { return _mm_unpackhi_epi64(a, b); }
    static Type turn4x4(Type x) {
        return _mm_shuffle_epi8(x, _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    }
};

// Panel rows of quads [quad][token][4] -> columns, in place.
template <int vectors>
void split_quads(char* panel, int64_t quads) {
    using B = Bytes<vectors>;
    constexpr int64_t bytes = 16 * vectors;
    for (int64_t quad = 0; quad < quads; ++quad, panel += 4 * bytes) {
        const auto a = B::turn4x4(B::load(panel)), b = B::turn4x4(B::load(panel + bytes));
        const auto c = B::turn4x4(B::load(panel + 2 * bytes)), d = B::turn4x4(B::load(panel + 3 * bytes));
        const auto ab_low = B::low32(a, b), ab_high = B::high32(a, b);
        const auto cd_low = B::low32(c, d), cd_high = B::high32(c, d);
        B::store(panel, B::low64(ab_low, cd_low));
        B::store(panel + bytes, B::high64(ab_low, cd_low));
        B::store(panel + 2 * bytes, B::low64(ab_high, cd_high));
        B::store(panel + 3 * bytes, B::high64(ab_high, cd_high));
    }
}

// places: 4 columns for each quad -> units [quad][token][4].
template <int vectors>
void gather_quads(const char* columns, const uint16_t* places, int64_t quads, char* units) {
    using B = Bytes<vectors>;
    constexpr int64_t bytes = 16 * vectors;
    for (int64_t quad = 0; quad < quads; ++quad, places += 4, units += 4 * bytes) {
        const auto a = B::load(columns + places[0] * bytes), b = B::load(columns + places[1] * bytes);
        const auto c = B::load(columns + places[2] * bytes), d = B::load(columns + places[3] * bytes);
        const auto ab_low = B::low8(a, b), ab_high = B::high8(a, b);
        const auto cd_low = B::low8(c, d), cd_high = B::high8(c, d);
        B::store(units, B::low16(ab_low, cd_low));
        B::store(units + bytes, B::high16(ab_low, cd_low));
        B::store(units + 2 * bytes, B::low16(ab_high, cd_high));
        B::store(units + 3 * bytes, B::high16(ab_high, cd_high));
    }
}

struct QuadGather {
    static constexpr bool gathers = true;
    static constexpr int64_t most_entries = 64;  // of a list: a slab has 256 columns

    static void split(char* panel, int64_t quads, int64_t vectors) {
        if (vectors == 4) return split_quads<4>(panel, quads);
        if (vectors == 2) return split_quads<2>(panel, quads);
        split_quads<1>(panel, quads);
    }
    template <int vectors>
    static void gather(const char* columns, const uint16_t* places, int64_t quads, char* units) {
        gather_quads<vectors>(columns, places, quads, units);
    }
};

}  // namespace
}  // namespace stepdown
