#include "sparse_ops.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checked.h"
#include "cpu.h"
#include "linear.h"
#include "norm.h"

namespace stepdown {
namespace {

using ort::Api;
using ort::Tensor;

class LinearNode : public Node {
public:
    // norm: null without one.
    LinearNode(const Api& api, const Shape& shape, std::unique_ptr<Linear> linear, std::unique_ptr<Norm> norm,
               size_t residual_index)
        : Node(api),
          shape_(shape),
          linear_(std::move(linear)),
          norm_(std::move(norm)),
          residual_index_(residual_index) {}

    void compute(ort::KernelContext* context) const override {
        const Tensor x = api.input(context, 0);
        if (x.shape.empty() || x.shape.back() != shape_.in) {
            const std::string found = x.shape.empty() ? "no axis" : std::to_string(x.shape.back());
            throw std::invalid_argument("the last axis of X is " + found + "; expected " + std::to_string(shape_.in));
        }
        int64_t tokens = 1;
        for (size_t axis = 0; axis + 1 < x.shape.size(); ++axis) tokens *= x.shape[axis];
        std::vector<int64_t> shape_out = x.shape;
        shape_out.back() = shape_.out;
        const float* residual = norm_ == nullptr ? nullptr : read_residual(context, shape_out);
        float* y = api.output(context, 0, shape_out);
        if (tokens == 0) return;
        const SessionThreads threads(api, context);
        linear_->run(static_cast<const float*>(x.data), y, tokens, threads);
        if (norm_ != nullptr) norm_->run(residual, y, tokens, threads);
    }

private:
    const float* read_residual(ort::KernelContext* context, const std::vector<int64_t>& expected) const {
        const Tensor residual = api.input(context, residual_index_);
        if (residual.shape != expected) {
            throw std::invalid_argument("residual is of shape " + describe(residual.shape) + "; expected " +
                                        describe(expected) + ", that of Y");
        }
        return static_cast<const float*>(residual.data);
    }

    Shape shape_;
    std::unique_ptr<Linear> linear_;
    std::unique_ptr<Norm> norm_;
    size_t residual_index_;
};

// The inputs after X, in their order; the type of each is said in the operator and checked by the runtime.
template <class T>
Span<T> read_constant(const Api& api, const ort::KernelInfo* info, size_t index) {
    const Tensor tensor = api.constant_input(info, index);
    if (tensor.shape.size() != 1) {
        throw std::invalid_argument("input " + std::to_string(index) + " has " + std::to_string(tensor.shape.size()) +
                                    " axes; expected 1");
    }
    return {static_cast<const T*>(tensor.data), tensor.shape[0]};
}

Shape read_shape(const Api& api, const ort::KernelInfo* info) {
    return check_shape({api.integer_attribute(info, "out_features"), api.integer_attribute(info, "in_features"),
                        api.integer_attribute(info, "block_out"), api.integer_attribute(info, "block_in")});
}

template <class T>
SparseWeight<T> read_weight(const Api& api, const ort::KernelInfo* info, const Shape& shape) {
    return check_weight<T>(shape, read_constant<T>(api, info, 1), read_constant<uint8_t>(api, info, 2),
                           read_constant<int32_t>(api, info, 3));
}

std::unique_ptr<Linear> make_float(const Api& api, const ort::KernelInfo* info, const Shape& shape) {
    const Activation activation = check_activation(api.string_attribute(info, "activation"));
    const SparseWeight<float> weight = read_weight<float>(api, info, shape);
    const Span<float> bias = read_constant<float>(api, info, 4);
    check_bias(shape, bias);
    return make_float_linear(weight, bias.data, activation, find_isa());
}

std::unique_ptr<Linear> make_int8(const Api& api, const ort::KernelInfo* info, const Shape& shape) {
    const Activation activation = check_activation(api.string_attribute(info, "activation"));
    check_int8_shape(shape);
    const SparseWeight<int8_t> weight = read_weight<int8_t>(api, info, shape);
    const Span<float> scales = read_constant<float>(api, info, 4), bias = read_constant<float>(api, info, 5);
    check_scales(weight, scales);
    check_bias(shape, bias);
    return make_int8_linear(weight, scales.data, bias.data, activation, find_isa());
}

// The three inputs from `residual` on.
std::unique_ptr<Norm> read_norm(const Api& api, const ort::KernelInfo* info, const Shape& shape, size_t residual) {
    int given = 0;
    for (size_t index = residual; index < residual + 3; ++index) given += api.has_input(info, index);
    const std::optional<float> epsilon = api.find_float_attribute(info, "epsilon");
    if (given == 0 && !epsilon) return nullptr;
    if (given != 3 || !epsilon) {
        throw std::invalid_argument(std::to_string(given) + " of residual, norm_scale and norm_bias are given, " +
                                    (epsilon ? "with" : "without") + " epsilon (float); expected all or none");
    }
    const Span<float> scale = read_constant<float>(api, info, residual + 1);
    const Span<float> bias = read_constant<float>(api, info, residual + 2);
    check_norm(shape, scale, bias, *epsilon);
    return std::make_unique<Norm>(shape.out, scale.data, bias.data, *epsilon, find_isa());
}

using MakeLinear = std::unique_ptr<Linear>(const Api&, const ort::KernelInfo*, const Shape&);

template <MakeLinear make, size_t residual>
std::unique_ptr<Node> make_node(const Api& api, const ort::KernelInfo* info) {
    const Shape shape = read_shape(api, info);
    return std::make_unique<LinearNode>(api, shape, make(api, info, shape), read_norm(api, info, shape, residual),
                                        residual);
}

}  // namespace

OwnOperator make_sparse_linear(ort::Table table) {
    using Type = ort::ElementType;
    static constexpr Type types[] = {Type::float32, Type::float32, Type::uint8,   Type::int32,
                                     Type::float32, Type::float32, Type::float32, Type::float32};
    static constexpr size_t residual = 5;
    OwnOperator op = make_operator(table, "out_features");
    op.name = [](const ort::Operator*) { return "SparseLinear"; };
    op.input_count = [](const ort::Operator*) { return std::size(types); };
    op.input_type = [](const ort::Operator*, size_t index) { return types[index]; };
    op.input_characteristic = tell_optional_from<residual>;
    op.create_kernel = create_kernel<make_node<make_float, residual>>;
    return op;
}

OwnOperator make_sparse_linear_int8(ort::Table table) {
    using Type = ort::ElementType;
    static constexpr Type types[] = {Type::float32, Type::int8,    Type::uint8,   Type::int32,  Type::float32,
                                     Type::float32, Type::float32, Type::float32, Type::float32};
    static constexpr size_t residual = 6;
    OwnOperator op = make_operator(table, "out_features");
    op.name = [](const ort::Operator*) { return "SparseLinearInt8"; };
    op.input_count = [](const ort::Operator*) { return std::size(types); };
    op.input_type = [](const ort::Operator*, size_t index) { return types[index]; };
    op.input_characteristic = tell_optional_from<residual>;
    op.create_kernel = create_kernel<make_node<make_int8, residual>>;
    return op;
}

}  // namespace stepdown
