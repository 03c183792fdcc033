// What a Lanes type offers, one number at a time. The vector ones (lanes_avx2.h, ...) give the same bits lane by lane.
//
// load_unaligned and store_unaligned, load_first and store_first (of n numbers) take any address. min and max return
// the second operand where either is NaN, as x86 does. They live in an unnamed namespace because several instruction
// sets compile templates over them: the linker must never take one source's code for another's.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace stepdown {
namespace {

struct ScalarLanes {
    using Vector = float;
    static constexpr int lanes = 1;

    static Vector broadcast(float x) { return x; }
    static Vector add(Vector a, Vector b) { return a + b; }
    static Vector subtract(Vector a, Vector b) { return a - b; }
    static Vector multiply(Vector a, Vector b) { return a * b; }
    static Vector divide(Vector a, Vector b) { return a / b; }
    // a * b + c, rounded once.
    static Vector multiply_add(Vector a, Vector b, Vector c) { return std::fma(a, b, c); }
    // a * b - c, rounded once.
    static Vector multiply_subtract(Vector a, Vector b, Vector c) { return std::fma(a, b, -c); }
    static Vector min(Vector a, Vector b) { return a < b ? a : b; }
    static Vector max(Vector a, Vector b) { return a > b ? a : b; }
    static Vector abs(Vector x) { return std::fabs(x); }
    // The sign bit decides.
    static Vector where_negative(Vector sign, Vector yes, Vector no) { return std::signbit(sign) ? yes : no; }
    // The float whose exponent field is the lowest eight bits of x, and the rest zero.
    static Vector exponent_from_lowest_bits(Vector x) {
        uint32_t bits;
        std::memcpy(&bits, &x, sizeof bits);
        bits <<= 23;
        std::memcpy(&x, &bits, sizeof bits);
        return x;
    }

    static Vector load_unaligned(const float* x) { return *x; }
    static void store_unaligned(float* x, Vector value) { *x = value; }
    // The first count of the numbers of a vector; what is missing is 0.
    static Vector load_first(const float* x, int count) { return count == 0 ? 0 : *x; }
    static void store_first(float* x, Vector value, int count) {
        if (count != 0) *x = value;
    }
};

}  // namespace
}  // namespace stepdown
