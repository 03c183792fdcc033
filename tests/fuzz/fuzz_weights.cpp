// Fuzzes the load checks, and whatever they let pass: packing, running and normalising on every instruction set of this
// CPU.
//
// In: bytes, read as a weight that is right and then as changes to its parts, so that most inputs are right or nearly
// right. Every array is a block of memory of exactly its size, for the address sanitizer. INT8 answers must be the same
// on every instruction set, bit for bit; and FP32 ones too where all is small integers, whose sums are exact.
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <vector>

#include "checked.h"
#include "drawn.h"
#include "linear.h"
#include "norm.h"

namespace {

using namespace stepdown;

template <class T>
Span<T> span(const std::vector<T>& numbers) {
    return {numbers.data(), static_cast<int64_t>(numbers.size())};
}

template <class T>
struct Node {
    Claims claims;
    std::vector<T> values;
    std::vector<uint8_t> gaps;
    std::vector<int32_t> row_starts;
    std::vector<float> scales, bias;
};

template <class T>
Node<T> make_node(Bytes& bytes) {
    constexpr int64_t blocks[][2] = {{1, 1}, {4, 1}, {8, 1}, {16, 1}, {1, 4}, {4, 4}, {16, 4}};
    const auto& [high, wide] = blocks[bytes.below(7)];
    Node<T> node{{1 + bytes.below(70), 1 + bytes.below(1200), high, wide}, {}, {}, {0}, {}, {}};
    const Shape shape = check_shape(node.claims);
    for (int64_t row = 0; row < shape.block_rows(); ++row) {
        const int64_t entries = bytes.below(6);
        int64_t column = -1;
        for (int64_t entry = 0; entry < entries; ++entry) {
            const uint8_t gap = bytes.next();
            column += 1 + gap;
            if (column >= shape.block_columns()) break;
            node.gaps.push_back(gap);
            for (int64_t at = 0; at < shape.block_size(); ++at) {
                const bool inside = row * high + at / wide < shape.out && column * wide + at % wide < shape.in;
                node.values.push_back(inside ? static_cast<T>(static_cast<int8_t>(bytes.next())) : T{0});
            }
        }
        node.row_starts.push_back(static_cast<int32_t>(node.gaps.size()));
    }
    node.scales.assign(static_cast<size_t>(shape.out), 0.5f);
    node.bias.assign(static_cast<size_t>(shape.out), 1.0f);
    return node;
}

template <class T>
void change(std::vector<T>& numbers, Bytes& bytes) {
    if (bytes.next() % 4 == 0)
        numbers.resize(static_cast<size_t>(bytes.below(static_cast<int64_t>(numbers.size()) + 4)));
    if (numbers.empty()) return;
    numbers[static_cast<size_t>(bytes.below(static_cast<int64_t>(numbers.size())))] = bytes.raw<T>();
}

template <class T>
void change(Node<T>& node, Bytes& bytes) {
    int64_t* const claims[] = {&node.claims.out_features, &node.claims.in_features, &node.claims.block_out,
                               &node.claims.block_in};
    switch (bytes.next() % 8) {
        case 0:
            return change(node.values, bytes);
        case 1:
            return change(node.gaps, bytes);
        case 2:
            return change(node.row_starts, bytes);
        case 3:
            return change(node.scales, bytes);
        case 4:
            return change(node.bias, bytes);
        case 5:
            *claims[bytes.next() % 4] = bytes.raw<int64_t>();
            return;
        case 6:
            *claims[bytes.next() % 4] = bytes.raw<int8_t>();
            return;
        default:
            *claims[bytes.next() % 4] = bytes.raw<int16_t>();
            return;
    }
}

std::unique_ptr<Linear> make(const SparseWeight<float>& weight, const Node<float>& node, Activation activation,
                             Isa isa) {
    return make_float_linear(weight, node.bias.data(), activation, isa);
}

std::unique_ptr<Linear> make(const SparseWeight<int8_t>& weight, const Node<int8_t>& node, Activation activation,
                             Isa isa) {
    return make_int8_linear(weight, node.scales.data(), node.bias.data(), activation, isa);
}

// What normalises the answers of a layer.
struct NormParts {
    std::vector<float> residual, scale, bias;
    float epsilon;
};

NormParts make_norm(const Shape& shape, int64_t tokens, Bytes& bytes) {
    NormParts parts{{}, {}, {}, bytes.raw<float>()};
    const auto fill = [&](std::vector<float>& numbers, int64_t size) {
        numbers.resize(static_cast<size_t>(size));
        for (float& number : numbers) number = static_cast<float>(static_cast<int8_t>(bytes.next()));
    };
    fill(parts.scale, shape.out);
    fill(parts.bias, shape.out);
    fill(parts.residual, tokens * shape.out);
    if (bytes.next() % 8 == 0) change(parts.scale, bytes);
    if (bytes.next() % 8 == 0) change(parts.bias, bytes);
    if (!parts.residual.empty() && bytes.next() % 4 == 0) parts.residual.back() = bytes.raw<float>();
    check_norm(shape, span(parts.scale), span(parts.bias), parts.epsilon);
    return {exactly(parts.residual), exactly(parts.scale), exactly(parts.bias), parts.epsilon};
}

void normalise(const Shape& shape, const NormParts& parts, int64_t tokens, Isa isa, std::vector<float>& y) {
    const Norm norm(shape.out, parts.scale.data(), parts.bias.data(), parts.epsilon, isa);
    norm.run(parts.residual.data(), y.data(), tokens, Serial());
}

template <class T>
void run(const Node<T>& node, bool exact, Bytes& bytes) {
    const Shape shape = check_shape(node.claims);
    if constexpr (std::is_same_v<T, int8_t>) check_int8_shape(shape);
    const SparseWeight<T> weight = check_weight<T>(shape, span(node.values), span(node.gaps), span(node.row_starts));
    if constexpr (std::is_same_v<T, int8_t>) check_scales(weight, span(node.scales));
    check_bias(shape, span(node.bias));
    // What got here is right. A layer may still be larger than a fuzzer has the time for.
    if (shape.out * shape.in > 1 << 20) return;
    const auto activation = static_cast<Activation>(bytes.next() % 5);
    const int64_t tokens = bytes.next() % 100;
    std::vector<float> x(static_cast<size_t>(tokens * shape.in));
    for (float& number : x) number = static_cast<float>(static_cast<int8_t>(bytes.next()));
    if (!x.empty() && bytes.next() % 4 == 0) {
        x[static_cast<size_t>(bytes.below(tokens * shape.in))] = bytes.raw<float>();
        exact = std::is_same_v<T, int8_t>;
    }
    const bool is_normed = bytes.next() % 2 == 1;
    const NormParts norm = is_normed ? make_norm(shape, tokens, bytes) : NormParts{};
    static const std::vector<Isa> usable = list_usable();
    std::vector<float> first;
    for (const Isa isa : usable) {
        std::vector<float> y(static_cast<size_t>(tokens * shape.out));
        make(weight, node, activation, isa)->run(x.data(), y.data(), tokens, Serial());
        if (is_normed) normalise(shape, norm, tokens, isa, y);
        if (isa == usable.front()) first = y;
        if (exact && !is_same(first, y)) std::abort();
    }
}

template <class T>
void fuzz(Bytes& bytes) {
    Node<T> node = make_node<T>(bytes);
    const int64_t changes = bytes.next() % 4;
    for (int64_t at = 0; at < changes; ++at) change(node, bytes);
    node.values = exactly(node.values);
    node.gaps = exactly(node.gaps);
    node.row_starts = exactly(node.row_starts);
    try {
        run(node, changes == 0 || std::is_same_v<T, int8_t>, bytes);
    } catch (const std::invalid_argument&) {
        // Refused with a message.
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    Bytes bytes(data, size);
    if (bytes.next() % 2 == 0) {
        fuzz<float>(bytes);
    } else {
        fuzz<int8_t>(bytes);
    }
    return 0;
}
