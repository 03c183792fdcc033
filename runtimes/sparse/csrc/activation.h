// Activation functions on any vector: the same operations in the same order, so the same bits, on every CPU.
//
// In: a Lanes type (lanes_scalar.h says what it must offer). Out: activate<Lanes>(x, activation).
// erf GELU is within 5 ulp of the exact value for |x| < 3 and within 11 wherever that is a normal number; tanh GELU is
// within 11 for |x| < 3. SiLU is within 3 for x > -88.37.
#pragma once

#include "sparse_weight.h"

namespace stepdown {

// Adding it to a number in [-127, 128] rounds that to a whole number n and leaves n + 127, the exponent of 2^n as a
// float stores it, in the lowest bits.
constexpr float exponent_magic = 12582912.0f + 127.0f;

// c[0] + c[1] x + c[2] x^2 + ...
template <class Lanes, int size>
inline typename Lanes::Vector polynomial(typename Lanes::Vector x, const float (&c)[size]) {
    auto sum = Lanes::broadcast(c[size - 1]);
    for (int at = size - 2; at >= 0; --at) sum = Lanes::multiply_add(sum, x, Lanes::broadcast(c[at]));
    return sum;
}

// 2^(x + rest) for x in [-127, 128], |rest| far below 1; 0 below 2^-126, infinity from 2^128 on. The polynomial is the
// best of its degree for the relative error on [-1/2, 1/2] (1.9e-9), fitted by iterated least squares.
template <class Lanes>
inline typename Lanes::Vector power_of_two(typename Lanes::Vector x, typename Lanes::Vector rest) {
    static constexpr float c[] = {1.0f,           0.693147182f,   0.240226462f,   0.0555032864f,
                                  0.00961848907f, 0.00133999577f, 0.000153457557f};
    const auto magic = Lanes::broadcast(exponent_magic);
    const auto biased = Lanes::add(x, magic);
    const auto fraction = Lanes::add(Lanes::subtract(x, Lanes::subtract(biased, magic)), rest);
    return Lanes::multiply(polynomial<Lanes>(fraction, c), Lanes::exponent_from_lowest_bits(biased));
}

// x P(X < x) for a normal X. The tail P(X > a) = exp(-a^2/2) m(a), where m, Mills' ratio over sqrt(2 pi), is a
// polynomial in (a - 3) / (a + 3), fitted on [0, 13.3] for the relative error (6.6e-9): past it the tail is no normal
// number. -a^2/2 log2(e) is taken in two floats, or its rounding would be the answer's error.
template <class Lanes>
inline typename Lanes::Vector gelu(typename Lanes::Vector x) {
    static constexpr float c[] = {0.121513948f,   -0.206402615f,    0.123225018f,     -0.0462133139f,  0.00613218546f,
                                  0.00290470058f, -0.000984193059f, -0.000339911756f, 0.000116051466f, 5.41589434e-05f};
    constexpr float log2e_half = -0.72134751f, log2e_half_rest = -9.62981495e-09f;
    const auto a = Lanes::min(Lanes::broadcast(14), Lanes::abs(x));
    const auto three = Lanes::broadcast(3);
    const auto mills = polynomial<Lanes>(Lanes::divide(Lanes::subtract(a, three), Lanes::add(a, three)), c);
    const auto high = Lanes::broadcast(log2e_half);
    const auto square = Lanes::multiply(a, a);
    const auto square_rest = Lanes::multiply_subtract(a, a, square);
    const auto power = Lanes::max(Lanes::broadcast(-127), Lanes::multiply(square, high));
    const auto power_rest =
        Lanes::multiply_add(square, Lanes::broadcast(log2e_half_rest),
                            Lanes::multiply_add(square_rest, high, Lanes::multiply_subtract(square, high, power)));
    const auto tail = Lanes::multiply(power_of_two<Lanes>(power, power_rest), mills);
    const auto one = Lanes::broadcast(1);
    return Lanes::multiply(x, Lanes::where_negative(x, tail, Lanes::subtract(one, tail)));
}

// x (1 + tanh(u)) / 2 = x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3); the constants carry -2 log2(e).
template <class Lanes>
inline typename Lanes::Vector gelu_tanh(typename Lanes::Vector x) {
    constexpr float linear = -2.30220819f, cubic = -0.102943242f;
    const auto square = Lanes::multiply(x, x);
    const auto power =
        Lanes::multiply(x, Lanes::multiply_add(square, Lanes::broadcast(cubic), Lanes::broadcast(linear)));
    const auto inside = Lanes::max(Lanes::broadcast(-127), Lanes::min(Lanes::broadcast(128), power));
    const auto below = Lanes::add(Lanes::broadcast(1), power_of_two<Lanes>(inside, Lanes::broadcast(0)));
    return Lanes::divide(x, below);
}

// x / (1 + exp(-x)), -x log2(e) in two floats, as in gelu: from 88 on that is x, below -88.37 it is 0, which is 4e-37
// from the exact value.
template <class Lanes>
inline typename Lanes::Vector silu(typename Lanes::Vector x) {
    constexpr float log2e = -1.44269502f, log2e_rest = -1.92596299e-08f;
    const auto inside = Lanes::max(Lanes::broadcast(-88.7228394f), Lanes::min(Lanes::broadcast(88), x));
    const auto high = Lanes::broadcast(log2e);
    const auto power = Lanes::multiply(inside, high);
    const auto rest =
        Lanes::multiply_add(inside, Lanes::broadcast(log2e_rest), Lanes::multiply_subtract(inside, high, power));
    const auto below = Lanes::add(Lanes::broadcast(1), power_of_two<Lanes>(power, rest));
    return Lanes::divide(x, below);
}

template <class Lanes>
inline typename Lanes::Vector activate(typename Lanes::Vector x, Activation activation) {
    switch (activation) {
        case Activation::none:
            return x;
        case Activation::relu:
            return Lanes::max(Lanes::broadcast(0), x);
        case Activation::gelu:
            return gelu<Lanes>(x);
        case Activation::gelu_tanh:
            return gelu_tanh<Lanes>(x);
        case Activation::silu:
            return silu<Lanes>(x);
    }
    return x;
}

}  // namespace stepdown
