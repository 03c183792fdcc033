// What our operators have in common, as ONNX Runtime calls them: one float32 output, and a Node behind each node of a
// model.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>

#include "ort_api.h"
#include "parallel.h"

namespace stepdown {

// One node of a model, checked and ready to run.
class Node {
public:
    explicit Node(const ort::Api& api) : api(api) {}
    virtual ~Node() = default;

    virtual void compute(ort::KernelContext*) const = 0;

    const ort::Api api;
};

// The threads of the session.
class SessionThreads : public Parallel {
public:
    SessionThreads(const ort::Api& api, const ort::KernelContext* context) : api_(api), context_(context) {}

    // Throws std::bad_alloc where body does, in whatever thread.
    void run(int64_t total, void (*body)(void* data, int64_t index), void* data) const override;

private:
    const ort::Api& api_;
    const ort::KernelContext* context_;
};

// An operator with the functions it calls back and the attribute that gives the last axis of its output: shapes are
// inferred before there is a node to keep them.
struct OwnOperator : ort::Operator {
    ort::Table table;
    const char* width;
};

// All but name, inputs and create_kernel.
OwnOperator make_operator(ort::Table, const char* width);

// "[2, 3]"
std::string describe(const std::vector<int64_t>& shape);

using MakeNode = std::unique_ptr<Node>(const ort::Api&, const ort::KernelInfo*);

// The callback that makes a node, or says why the model's is refused.
template <MakeNode make>
ort::Status* create_kernel(const ort::Operator* op, ort::Table table, const ort::KernelInfo* info, void** kernel) {
    const ort::Api api(table);
    return ort::guarded(api, [&] {
        try {
            *kernel = make(api, info).release();
        } catch (const std::invalid_argument& error) {
            throw std::invalid_argument(std::string(op->name(op)) + ": " + error.what());
        }
    });
}

template <size_t first>
ort::Characteristic tell_optional_from(const ort::Operator*, size_t index) {
    return index < first ? ort::Characteristic::required : ort::Characteristic::optional;
}

}  // namespace stepdown
