// Normalising tokens on any vector.
//
// Included by the source of one ISA. In: a Lanes type (lanes_scalar.h says what it must offer). A sum over a token is
// kept in as many parts as the widest vectors need, number i in part i modulo that, and the parts are added in pairs:
// so every instruction set adds the same numbers in the same order.
#pragma once

#include <cmath>

#include "norm.h"

namespace stepdown {
namespace {

// Two of the widest vectors: one addition need not wait for the one before.
constexpr int norm_parts = 32;

template <class Lanes>
struct WholeVector {
    using Vector = typename Lanes::Vector;

    Vector load(const float* x) const { return Lanes::load_unaligned(x); }
    void store(float* x, Vector value) const { Lanes::store_unaligned(x, value); }
    Vector clear_rest(Vector value) const { return value; }
};

// The first numbers of a vector, at the end of a token; the rest is 0.
template <class Lanes>
struct PartVector {
    using Vector = typename Lanes::Vector;

    int count;

    Vector load(const float* x) const { return Lanes::load_first(x, count); }
    void store(float* x, Vector value) const { Lanes::store_first(x, value, count); }
    Vector clear_rest(Vector value) const {
        float numbers[Lanes::lanes];
        Lanes::store_unaligned(numbers, value);
        return Lanes::load_first(numbers, count);
    }
};

template <class Lanes>
class TokenNorm {
public:
    explicit TokenNorm(const NormJob& job) : job_(job) {}

    void run(int64_t token) const {
        const float* residual = job_.residual + token * job_.width;
        float* y = job_.y + token * job_.width;
        const float width = static_cast<float>(job_.width);
        const float mean = sum([&](int64_t at, auto vector) {
                               const Vector value = Lanes::add(vector.load(y + at), vector.load(residual + at));
                               vector.store(y + at, value);
                               return value;
                           }) /
                           width;
        const Vector means = Lanes::broadcast(mean);
        const float variance = sum([&](int64_t at, auto vector) {
                                   const Vector rest = vector.clear_rest(Lanes::subtract(vector.load(y + at), means));
                                   return Lanes::multiply(rest, rest);
                               }) /
                               width;
        const Vector factors = Lanes::broadcast(1 / std::sqrt(variance + job_.epsilon));
        sweep([&](int, int64_t at, auto vector) {
            const Vector rest = Lanes::multiply(Lanes::subtract(vector.load(y + at), means), factors);
            const Vector scaled = Lanes::multiply(rest, vector.load(job_.scale + at));
            vector.store(y + at, Lanes::add(scaled, vector.load(job_.bias + at)));
        });
    }

private:
    using Vector = typename Lanes::Vector;
    static constexpr int vectors = norm_parts / Lanes::lanes;

    // Calls body(vector of the sum, place in the token, access) for all numbers of a token.
    template <class Body>
    [[gnu::always_inline]] void sweep(const Body& body) const {
        int64_t first = 0;
        for (; first + norm_parts <= job_.width; first += norm_parts) {
#pragma GCC unroll 32
            for (int vector = 0; vector < vectors; ++vector) {
                body(vector, first + vector * Lanes::lanes, WholeVector<Lanes>{});
            }
        }
#pragma GCC unroll 32
        for (int vector = 0; vector < vectors; ++vector) {
            const int64_t at = first + vector * Lanes::lanes;
            if (at >= job_.width) break;
            const int64_t left = job_.width - at;
            body(vector, at, PartVector<Lanes>{left < Lanes::lanes ? static_cast<int>(left) : Lanes::lanes});
        }
    }

    // The sum of what term(place, access) answers.
    template <class Term>
    [[gnu::always_inline]] float sum(const Term& term) const {
        Vector sums[vectors];
        for (Vector& one : sums) one = Lanes::broadcast(0);
        sweep([&](int vector, int64_t at, auto access) { sums[vector] = Lanes::add(sums[vector], term(at, access)); });
        float parts[norm_parts];
        for (int vector = 0; vector < vectors; ++vector) {
            Lanes::store_unaligned(parts + vector * Lanes::lanes, sums[vector]);
        }
        for (int half = norm_parts / 2; half > 0; half /= 2) {
            for (int part = 0; part < half; ++part) parts[part] += parts[part + half];
        }
        return parts[0];
    }

    const NormJob& job_;
};

template <class Lanes>
void norm_tokens(const NormJob& job) {
    const TokenNorm<Lanes> norm(job);
    for (int64_t token = 0; token < job.tokens; ++token) norm.run(token);
}

}  // namespace
}  // namespace stepdown
