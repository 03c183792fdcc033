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
        Task task{this, x, y};
        parallel.run(
            tokens,
            [](void* data, int64_t token) {
                const Task& task = *static_cast<Task*>(data);
                const Shape& shape = task.linear->rows_.shape();
                task.linear->run_token(task.x + token * shape.in, task.y + token * shape.out);
            },
            &task);
    }

private:
    struct Task {
        const FloatScalar* linear;
        const float* x;
        float* y;
    };

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
