// Attention of one head on any vector, a query a lane.
//
// Included by the source of one ISA. In: an Isa, which is a Lanes type (lanes_scalar.h says what it must offer) with
// `rows`, how many rows of two vectors fit the registers, and Square, which turns `square` by `square` numbers round.
// Keys and values are packed once, `rows` of what is summed for side by side, without padding; queries are turned round
// a block at a time. So both products run on one loop, a number for all lanes times a vector, and the softmax needs no
// sum across a vector: every instruction set does the same for each query, in the same order.
#pragma once

#include "activation.h"
#include "attention.h"

namespace stepdown {
namespace {

constexpr int block_vectors = 2;

constexpr int64_t fill_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

// to[column][row] = from(row)[column]
template <class Isa, class From>
void turn(const From& from, int64_t rows, int64_t columns, float* to, int64_t stride) {
    constexpr int square = Isa::square;
    for (int64_t row = 0; row < rows; row += square) {
        const int high = rows - row < square ? static_cast<int>(rows - row) : square;
        const float* lines[square];
        for (int at = 0; at < high; ++at) lines[at] = from(row + at);
        int64_t column = 0;
        for (; high == square && column + square <= columns; column += square) {
            typename Isa::Square::Vector part[square];
            for (int at = 0; at < square; ++at) part[at] = Isa::Square::load_unaligned(lines[at] + column);
            Isa::Square::transpose(part);
            for (int at = 0; at < square; ++at) {
                Isa::Square::store_unaligned(to + (column + at) * stride + row, part[at]);
            }
        }
        for (; column < columns; ++column) {
            for (int at = 0; at < high; ++at) to[column * stride + row + at] = lines[at][column];
        }
    }
}

template <class Isa>
class AttentionHead {
    using Vector = typename Isa::Vector;
    static constexpr int lanes = Isa::lanes;
    static constexpr int rows = Isa::rows;
    static constexpr int most_width = block_vectors * lanes;

public:
    static int64_t scratch_size(int64_t keys, int64_t size) {
        const int64_t high = fill_up(size, rows), wide = fill_up(keys, rows);
        return high * (wide + most_width) + wide * (size + most_width) + 2 * keys;
    }

    explicit AttentionHead(const AttentionJob& job)
        : job_(job), high_(fill_up(job.size, rows)), turned_(job.scratch), weights_(turned_ + high_ * most_width) {
        const int64_t wide = fill_up(job.keys, rows);
        packed_keys_ = weights_ + wide * most_width;
        packed_values_ = packed_keys_ + wide * job.size;
        // A place is as long as two numbers, and at an even number of them.
        places_ = reinterpret_cast<int64_t*>(packed_values_ + high_ * wide);
    }

    void run() {
        find_keys();
        pack_keys();
        pack_values();
        int64_t query = 0;
        for (; query + lanes < job_.queries; query += most_width) run_block<block_vectors>(query);
        if (query < job_.queries) run_block<1>(query);
    }

private:
    // Where the keys are that are no padding.
    void find_keys() {
        for (int64_t key = 0; key < job_.keys; ++key) {
            places_[keys_] = key * job_.stride;
            keys_ += job_.seen == nullptr || job_.seen[key] != 0;
        }
        if (keys_ > 0) return;
        for (; keys_ < job_.keys; ++keys_) places_[keys_] = keys_ * job_.stride;
    }

    // [key / rows][size][key % rows]. Where keys are missing at the end the last stands in for them.
    void pack_keys() {
        for (int64_t first = 0; first < keys_; first += rows) {
            const auto from = [&](int64_t row) {
                return job_.k + places_[first + row < keys_ ? first + row : keys_ - 1];
            };
            turn<Isa>(from, rows, job_.size, packed_keys_ + first * job_.size, rows);
        }
    }

    // [size / rows][key][size % rows]. What is missing at the end is 0.
    void pack_values() {
        constexpr int square = Isa::square;
        for (int64_t first = 0; first < job_.size; first += rows) {
            const int64_t count = job_.size - first < rows ? job_.size - first : rows;
            float* to = packed_values_ + first * keys_;
            for (int64_t key = 0; key < keys_; ++key, to += rows) {
                const float* const from = job_.v + places_[key] + first;
                if (count == rows) {
                    for (int at = 0; at < rows; at += square) {
                        Isa::Square::store_unaligned(to + at, Isa::Square::load_unaligned(from + at));
                    }
                } else {
                    for (int at = 0; at < rows; ++at) to[at] = at < count ? from[at] : 0;
                }
            }
        }
    }

    template <int vectors>
    void run_block(int64_t first) {
        constexpr int64_t width = vectors * lanes;
        const int64_t queries = job_.queries - first < width ? job_.queries - first : width;
        // Where queries are missing, something stands in for them.
        for (int64_t at = 0; queries < width && at < job_.size * width; ++at) turned_[at] = 0;
        const auto query = [&](int64_t row) { return job_.q + (first + row) * job_.stride; };
        turn<Isa>(query, queries, job_.size, turned_, width);
        Vector most[vectors], sums[vectors];
        score(most);
        weigh(most, sums);
        blend(sums);
        const auto answer = [&](int64_t row) { return turned_ + row * width; };
        turn<Isa>(answer, job_.size, queries, job_.y + first * job_.stride, job_.stride);
    }

    // weights [key][query] = k q, and the most of each query.
    template <int vectors>
    void score(Vector (&most)[vectors]) {
        for (Vector& one : most) one = Isa::broadcast(-__builtin_inff());
        for (int64_t first = 0; first < keys_; first += rows) {
            Vector sums[rows][vectors];
            multiply(packed_keys_ + first * job_.size, turned_, job_.size, sums);
            float* to = weights_ + first * vectors * lanes;
            for (int row = 0; row < rows; ++row) {
                for (int vector = 0; vector < vectors; ++vector, to += lanes) {
                    Isa::store_unaligned(to, sums[row][vector]);
                    most[vector] = Isa::max(most[vector], sums[row][vector]);
                }
            }
        }
    }

    // weights = exp(scale (weights - most)), and their sums.
    template <int vectors>
    void weigh(const Vector (&most)[vectors], Vector (&sums)[vectors]) {
        // What is raised is a power of two.
        const Vector factor = Isa::broadcast(job_.scale * 1.44269504f);
        const Vector least = Isa::broadcast(-127), zero = Isa::broadcast(0);
        Vector top[vectors];
        for (int vector = 0; vector < vectors; ++vector) {
            top[vector] = Isa::multiply(most[vector], factor);
            sums[vector] = zero;
        }
        float* at = weights_;
        for (int64_t key = 0; key < keys_; ++key) {
            for (int vector = 0; vector < vectors; ++vector, at += lanes) {
                const Vector power = Isa::multiply_subtract(Isa::load_unaligned(at), factor, top[vector]);
                const Vector weight = power_of_two<Isa>(Isa::max(least, power), zero);
                Isa::store_unaligned(at, weight);
                sums[vector] = Isa::add(sums[vector], weight);
            }
        }
    }

    // turned [size][query] = v weights / sums
    template <int vectors>
    void blend(const Vector (&totals)[vectors]) {
        Vector factors[vectors];
        for (int vector = 0; vector < vectors; ++vector) {
            factors[vector] = Isa::divide(Isa::broadcast(1), totals[vector]);
        }
        for (int64_t first = 0; first < job_.size; first += rows) {
            Vector sums[rows][vectors];
            multiply(packed_values_ + first * keys_, weights_, keys_, sums);
            float* to = turned_ + first * vectors * lanes;
            for (int row = 0; row < rows; ++row) {
                for (int vector = 0; vector < vectors; ++vector, to += lanes) {
                    Isa::store_unaligned(to, Isa::multiply(sums[row][vector], factors[vector]));
                }
            }
        }
    }

    // sums [row][query] = left [at][row] right [at][query], over all at. The innermost loop: all bounds but one are
    // constants, so that sums stay in registers.
    template <int vectors>
    static inline void multiply(const float* left, const float* right, int64_t depth, Vector (&sums)[rows][vectors]) {
        for (auto& row : sums) {
            for (Vector& sum : row) sum = Isa::broadcast(0);
        }
        for (int64_t at = 0; at < depth; ++at, left += rows) {
            Vector now[vectors];
            for (int vector = 0; vector < vectors; ++vector, right += lanes) now[vector] = Isa::load_unaligned(right);
            for (int row = 0; row < rows; ++row) {
                const Vector one = Isa::broadcast(left[row]);
                for (int vector = 0; vector < vectors; ++vector) {
                    sums[row][vector] = Isa::multiply_add(one, now[vector], sums[row][vector]);
                }
            }
        }
    }

    const AttentionJob& job_;
    int64_t high_;  // the size of the head, filled up
    int64_t keys_ = 0;
    float *turned_, *weights_, *packed_keys_, *packed_values_;
    int64_t* places_;
};

template <class Isa>
AttentionKernel make_attention() {
    return {AttentionHead<Isa>::scratch_size, [](const AttentionJob& job) { AttentionHead<Isa>(job).run(); }};
}

}  // namespace
}  // namespace stepdown
