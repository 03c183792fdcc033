#include "operator.h"

#include <atomic>
#include <new>

namespace stepdown {
namespace {

struct Work {
    void (*body)(void* data, int64_t index);
    void* data;
    std::atomic<bool> failed;
};

// An exception would end the process in a thread of the runtime.
void run_one(void* data, size_t index) {
    Work& work = *static_cast<Work*>(data);
    try {
        work.body(work.data, static_cast<int64_t>(index));
    } catch (const std::bad_alloc&) {
        work.failed = true;
    }
}

ort::Status* compute(void* kernel, ort::KernelContext* context) {
    const Node& node = *static_cast<Node*>(kernel);
    return ort::guarded(node.api, [&] { node.compute(context); });
}

void destroy_kernel(void* kernel) { delete static_cast<Node*>(kernel); }

// A shape that cannot be told is left open; the node checks it when it runs.
ort::Status* infer_shape(const ort::Operator* op, ort::ShapeContext* context) {
    const OwnOperator& own = *static_cast<const OwnOperator*>(op);
    const ort::Api api(own.table);
    return ort::guarded(api, [&] {
        try {
            api.infer_last_axis(context, own.width);
        } catch (const ort::Error&) {
        }
    });
}

}  // namespace

void SessionThreads::run(int64_t total, void (*body)(void* data, int64_t index), void* data) const {
    if (total == 0) return;
    if (total == 1) return body(data, 0);
    Work work{body, data, {false}};
    api_.parallel_for(context_, run_one, static_cast<size_t>(total), &work);
    if (work.failed) throw std::bad_alloc();
}

OwnOperator make_operator(ort::Table table, const char* width) {
    OwnOperator op{};
    op.table = table;
    op.width = width;
    op.version = ort::api_version;
    op.provider = [](const ort::Operator*) { return "CPUExecutionProvider"; };
    op.output_type = [](const ort::Operator*, size_t) { return ort::ElementType::float32; };
    op.output_count = [](const ort::Operator*) -> size_t { return 1; };
    op.output_characteristic = [](const ort::Operator*, size_t) { return ort::Characteristic::required; };
    op.input_memory = [](const ort::Operator*, size_t) { return ort::MemoryType::standard; };
    op.compute = compute;
    op.destroy_kernel = destroy_kernel;
    op.infer_shape = infer_shape;
    op.first_opset = [](const ort::Operator*) { return int32_t{1}; };
    op.last_opset = [](const ort::Operator*) { return INT32_MAX; };
    return op;
}

std::string describe(const std::vector<int64_t>& shape) {
    std::string text;
    for (const int64_t axis : shape) text += (text.empty() ? "" : ", ") + std::to_string(axis);
    return "[" + text + "]";
}

}  // namespace stepdown
