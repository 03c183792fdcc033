#include "float_scalar.h"

#include "activation.h"
#include "block_rows.h"
#include "lanes_scalar.h"

namespace stepdown {
namespace {

class FloatScalar : public Linear {
public:
    FloatScalar(const SparseWeight<float>& weight, const float* bias, Activation activation)
        : rows_(weight), bias_(bias, bias + weight.shape.out), activation_(activation) {}

    void run(const float* x, float* y, int64_t tokens, const Parallel& parallel) const override {
        const Shape& shape = rows_.shape();
        for_each(parallel, tokens, [&](int64_t token) { run_token(x + token * shape.in, y + token * shape.out); });
    }

private:
    void run_token(const float* x, float* y) const {
        for (int64_t row = 0; row < rows_.shape().block_rows(); ++row) {
            const int64_t first = row * rows_.shape().block_out;
            float sums[max_block_out] = {};
            std::copy_n(bias_.data() + first, rows_.height(row), sums);
            rows_.multiply(x, row, sums);
            for (int64_t at = 0; at < rows_.height(row); ++at)
                y[first + at] = activate<ScalarLanes>(sums[at], activation_);
        }
    }

    BlockRows<float> rows_;
    std::vector<float> bias_;
    Activation activation_;
};

}  // namespace

std::unique_ptr<Linear> make_float_scalar(const SparseWeight<float>& weight, const float* bias, Activation activation) {
    return std::make_unique<FloatScalar>(weight, bias, activation);
}

}  // namespace stepdown
