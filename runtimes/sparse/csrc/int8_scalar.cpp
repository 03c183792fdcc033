#include "int8_scalar.h"

#include <cmath>
#include <limits>

#include "activation.h"
#include "block_rows.h"
#include "lanes_scalar.h"

namespace stepdown {
namespace {

// A token in 8 bits: x is about step * (level - zero_point). The step is NaN where the token has no finite range.
struct Levels {
    std::vector<uint8_t> levels;
    float step;
    int32_t zero_point;
};

// The arithmetic, operation for operation, is that of runtimes/sparse/reference.py.
Levels quantise(const float* x, int64_t size) {
    float low = 0, high = 0;
    bool ordered = true;
    for (int64_t at = 0; at < size; ++at) {
        low = x[at] < low ? x[at] : low;
        high = x[at] > high ? x[at] : high;
        ordered = ordered && x[at] == x[at];
    }
    const float span = high - low;
    if (!ordered || !std::isfinite(span)) return {{}, std::numeric_limits<float>::quiet_NaN(), 0};
    const float step = span / 255 < std::numeric_limits<float>::min() ? 1 : span / 255;
    const float inverse = 1 / step;
    const float zero_point = std::clamp(std::nearbyint(-low * inverse), 0.0f, 255.0f);
    std::vector<uint8_t> levels(static_cast<size_t>(size));
    for (int64_t at = 0; at < size; ++at) {
        levels[at] = static_cast<uint8_t>(std::clamp(std::nearbyint(x[at] * inverse) + zero_point, 0.0f, 255.0f));
    }
    return {std::move(levels), step, static_cast<int32_t>(zero_point)};
}

class Int8Scalar : public Linear {
public:
    Int8Scalar(const SparseWeight<int8_t>& weight, const float* scales, const float* bias, Activation activation)
        : rows_(weight),
          scales_(scales, scales + weight.shape.out),
          bias_(bias, bias + weight.shape.out),
          sums_(sum_values(rows_)),
          activation_(activation) {}

    void run(const float* x, float* y, int64_t tokens, const Parallel& parallel) const override {
        const Shape& shape = rows_.shape();
        for_each(parallel, tokens, [&](int64_t token) { run_token(x + token * shape.in, y + token * shape.out); });
    }

private:
    // The sum of the values of each output: what the zero point adds to its sum.
    static std::vector<int32_t> sum_values(const BlockRows<int8_t>& rows) {
        const Shape& shape = rows.shape();
        const std::vector<uint8_t> ones(static_cast<size_t>(shape.in), 1);
        std::vector<int32_t> sums(static_cast<size_t>(shape.block_rows() * shape.block_out));
        for (int64_t row = 0; row < shape.block_rows(); ++row) {
            int32_t found[max_block_out] = {};
            rows.multiply(ones.data(), row, found);
            std::copy_n(found, shape.block_out, sums.data() + row * shape.block_out);
        }
        return sums;
    }

    void run_token(const float* x, float* y) const {
        const Shape& shape = rows_.shape();
        const Levels token = quantise(x, shape.in);
        if (token.levels.empty()) {
            std::fill_n(y, shape.out, token.step);
            return;
        }
        for (int64_t row = 0; row < shape.block_rows(); ++row) {
            int32_t sums[max_block_out] = {};
            rows_.multiply(token.levels.data(), row, sums);
            for (int64_t at = 0; at < rows_.height(row); ++at) {
                const int64_t output = row * shape.block_out + at;
                const int32_t sum = sums[at] - token.zero_point * sums_[output];
                const float factor = token.step * scales_[output];
                y[output] = activate<ScalarLanes>(static_cast<float>(sum) * factor + bias_[output], activation_);
            }
        }
    }

    BlockRows<int8_t> rows_;
    std::vector<float> scales_, bias_;
    std::vector<int32_t> sums_;
    Activation activation_;
};

}  // namespace

std::unique_ptr<Linear> make_int8_scalar(const SparseWeight<int8_t>& weight, const float* scales, const float* bias,
                                         Activation activation) {
    return std::make_unique<Int8Scalar>(weight, scales, bias, activation);
}

}  // namespace stepdown
