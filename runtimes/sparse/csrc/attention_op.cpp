#include "attention_op.h"

#include <cmath>
#include <optional>
#include <vector>

#include "attention.h"
#include "cpu.h"

namespace stepdown {
namespace {

using ort::Api;
using ort::Tensor;

constexpr size_t mask_index = 3;

void expect_shape(const char* name, const Tensor& found, const std::vector<int64_t>& expected) {
    if (found.shape == expected) return;
    throw std::invalid_argument(std::string(name) + " is of shape " + describe(found.shape) + "; expected " +
                                describe(expected));
}

// No model has more, and every product of these fits 64 bits.
constexpr int64_t max_features = int64_t{1} << 24;

void check_heads(int64_t features, int64_t heads) {
    if (features < 1 || features > max_features) {
        throw std::invalid_argument("features is " + std::to_string(features) + "; expected 1 to " +
                                    std::to_string(max_features));
    }
    if (heads < 1 || features % heads != 0) {
        throw std::invalid_argument("heads is " + std::to_string(heads) + "; expected a divisor of features, " +
                                    std::to_string(features));
    }
}

float check_scale(const std::optional<float>& scale) {
    if (scale && std::isfinite(*scale) && *scale > 0) return *scale;
    throw std::invalid_argument("scale is " + (scale ? std::to_string(*scale) : "missing") +
                                "; expected a number above 0");
}

class AttentionNode : public Node {
public:
    AttentionNode(const Api& api, int64_t features, int64_t heads, float scale, bool masked)
        : Node(api), features_(features), masked_(masked), attention_(heads, features / heads, scale, find_isa()) {}

    void compute(ort::KernelContext* context) const override {
        const Tensor q = api.input(context, 0), k = api.input(context, 1), v = api.input(context, 2);
        check_tokens("Q", q);
        check_tokens("K", k);
        AttentionTexts texts{};
        texts.batch = q.shape[0], texts.queries = q.shape[1], texts.keys = k.shape[1];
        expect_shape("K", k, {texts.batch, texts.keys, features_});
        expect_shape("V", v, k.shape);
        if (masked_) {
            const Tensor mask = api.input(context, mask_index);
            expect_shape("mask", mask, {texts.batch, texts.keys});
            texts.seen = static_cast<const uint8_t*>(mask.data);
        }
        texts.y = api.output(context, 0, q.shape);
        if (texts.batch == 0 || texts.queries == 0) return;
        if (texts.keys == 0) throw std::invalid_argument("K has no token; expected one at least");
        texts.q = static_cast<const float*>(q.data);
        texts.k = static_cast<const float*>(k.data);
        texts.v = static_cast<const float*>(v.data);
        attention_.run(texts, SessionThreads(api, context));
    }

private:
    void check_tokens(const char* name, const Tensor& found) const {
        if (found.shape.size() == 3 && found.shape[2] == features_) return;
        throw std::invalid_argument(std::string(name) + " is of shape " + describe(found.shape) +
                                    "; expected [batch, tokens, " + std::to_string(features_) + "]");
    }

    int64_t features_;
    bool masked_;
    Attention attention_;
};

std::unique_ptr<Node> make_node(const Api& api, const ort::KernelInfo* info) {
    const int64_t features = api.integer_attribute(info, "features"), heads = api.integer_attribute(info, "heads");
    check_heads(features, heads);
    const float scale = check_scale(api.find_float_attribute(info, "scale"));
    return std::make_unique<AttentionNode>(api, features, heads, scale, api.has_input(info, mask_index));
}

}  // namespace

OwnOperator make_attention(ort::Table table) {
    OwnOperator op = make_operator(table, "features");
    op.name = [](const ort::Operator*) { return "ScaledDotProductAttention"; };
    op.input_count = [](const ort::Operator*) { return mask_index + 1; };
    op.input_type = [](const ort::Operator*, size_t index) {
        return index == mask_index ? ort::ElementType::boolean : ort::ElementType::float32;
    };
    op.input_characteristic = tell_optional_from<mask_index>;
    op.create_kernel = create_kernel<make_node>;
    return op;
}

}  // namespace stepdown
