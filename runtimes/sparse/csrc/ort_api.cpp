#include "ort_api.h"

#include <memory>

namespace stepdown::ort {

void Api::check(Status* status) const {
    if (status == nullptr) return;
    const std::string message = function<const char*(const Status*)>(Slot::get_error_message)(status);
    function<void(Status*)>(Slot::release_status)(status);
    throw Error(message);
}

// F is the type of the function: what it takes is never left to the types of the arguments.
template <class F, class... Arguments>
void Api::call(Slot slot, Arguments... arguments) const {
    check(function<F>(slot)(arguments...));
}

Status* Api::create_status(ErrorCode code, const char* message) const {
    return function<Status*(ErrorCode, const char*)>(Slot::create_status)(code, message);
}

Domain* Api::create_domain(const char* name) const {
    Domain* domain = nullptr;
    call<Status*(const char*, Domain**)>(Slot::create_domain, name, &domain);
    return domain;
}

void Api::add_to_domain(Domain* domain, const Operator* op) const {
    call<Status*(Domain*, const Operator*)>(Slot::add_to_domain, domain, op);
}

void Api::add_domain(SessionOptions* options, Domain* domain) const {
    call<Status*(SessionOptions*, Domain*)>(Slot::add_domain, options, domain);
}

int64_t Api::integer_attribute(const KernelInfo* info, const char* name) const try {
    int64_t value = 0;
    call<Status*(const KernelInfo*, const char*, int64_t*)>(Slot::integer_attribute, info, name, &value);
    return value;
} catch (const Error& error) {
    throw std::invalid_argument(std::string(name) + " cannot be read: " + error.what() + "; expected an integer");
}

std::string Api::string_attribute(const KernelInfo* info, const char* name) const try {
    // The first call answers the size, the closing zero included.
    size_t size = 0;
    using Get = Status*(const KernelInfo*, const char*, char*, size_t*);
    call<Get>(Slot::string_attribute, info, name, static_cast<char*>(nullptr), &size);
    std::string value(size, '\0');
    call<Get>(Slot::string_attribute, info, name, value.data(), &size);
    value.resize(size == 0 ? 0 : size - 1);
    return value;
} catch (const Error& error) {
    throw std::invalid_argument(std::string(name) + " cannot be read: " + error.what() + "; expected a string");
}

std::optional<float> Api::find_float_attribute(const KernelInfo* info, const char* name) const try {
    float value = 0;
    call<Status*(const KernelInfo*, const char*, float*)>(Slot::float_attribute, info, name, &value);
    return value;
} catch (const Error&) {
    return std::nullopt;
}

bool Api::has_input(const KernelInfo* info, size_t index) const {
    size_t count = 0;
    call<Status*(const KernelInfo*, size_t*)>(Slot::input_count, info, &count);
    if (index >= count) return false;
    // The size of the name, the closing zero included: one that is left out has none.
    size_t size = 0;
    using Get = Status*(const KernelInfo*, size_t, char*, size_t*);
    call<Get>(Slot::input_name, info, index, static_cast<char*>(nullptr), &size);
    return size > 1;
}

Tensor Api::constant_input(const KernelInfo* info, size_t index) const {
    int32_t constant = 0;
    const Value* value = nullptr;
    using Get = Status*(const KernelInfo*, size_t, int32_t*, const Value**);
    call<Get>(Slot::constant_input, info, index, &constant, &value);
    if (constant == 0 || value == nullptr) {
        throw std::invalid_argument("input " + std::to_string(index) + " is computed; expected a constant initializer");
    }
    return describe(value);
}

Tensor Api::input(KernelContext* context, size_t index) const {
    const Value* value = nullptr;
    call<Status*(const KernelContext*, size_t, const Value**)>(Slot::kernel_input, context, index, &value);
    if (value == nullptr) throw Error("input " + std::to_string(index) + " is missing");
    return describe(value);
}

float* Api::output(KernelContext* context, size_t index, const std::vector<int64_t>& shape) const {
    Value* value = nullptr;
    using Get = Status*(KernelContext*, size_t, const int64_t*, size_t, Value**);
    call<Get>(Slot::kernel_output, context, index, shape.data(), shape.size(), &value);
    void* data = nullptr;
    call<Status*(Value*, void**)>(Slot::tensor_data, value, &data);
    return static_cast<float*>(data);
}

void Api::parallel_for(const KernelContext* context, void (*body)(void*, size_t), size_t total, void* data) const {
    // 0 batches: each thread takes the next index when it is done with one.
    const size_t batches = 0;
    using Run = Status*(const KernelContext*, void (*)(void*, size_t), size_t, size_t, void*);
    call<Run>(Slot::parallel_for, context, body, total, batches, data);
}

Tensor Api::describe(const Value* value) const {
    TensorInfo* raw = nullptr;
    call<Status*(const Value*, TensorInfo**)>(Slot::tensor_info, value, &raw);
    const std::unique_ptr<TensorInfo, void (*)(TensorInfo*)> info(
        raw, function<void(TensorInfo*)>(Slot::release_tensor_info));
    Tensor tensor{};
    size_t axes = 0;
    call<Status*(const TensorInfo*, ElementType*)>(Slot::element_type, raw, &tensor.type);
    call<Status*(const TensorInfo*, size_t*)>(Slot::dimension_count, raw, &axes);
    tensor.shape.resize(axes);
    call<Status*(const TensorInfo*, int64_t*, size_t)>(Slot::dimensions, raw, tensor.shape.data(), axes);
    // The function takes what it could change; what it answers for is only read.
    call<Status*(Value*, void**)>(Slot::tensor_data, const_cast<Value*>(value), &tensor.data);
    return tensor;
}

void Api::infer_last_axis(ShapeContext* context, const char* attribute) const {
    TensorInfo* input = nullptr;  // belongs to the context
    size_t axes = 0;
    call<Status*(const ShapeContext*, size_t, TensorInfo**)>(Slot::shape_input, context, size_t{0}, &input);
    call<Status*(const TensorInfo*, size_t*)>(Slot::dimension_count, input, &axes);
    if (axes == 0) return;
    std::vector<int64_t> shape(axes);
    std::vector<const char*> names(axes, "");
    call<Status*(const TensorInfo*, int64_t*, size_t)>(Slot::dimensions, input, shape.data(), axes);
    call<Status*(const TensorInfo*, const char**, size_t)>(Slot::symbolic_dimensions, input, names.data(), axes);
    for (size_t axis = 0; axis + 1 < axes; ++axis) {
        // Without a size and without a name: the runtime would take -1 for the size.
        if (shape[axis] < 0 && *names[axis] == '\0') return;
    }
    const Attribute* found = nullptr;
    size_t bytes = 0;
    call<Status*(const ShapeContext*, const char*, const Attribute**)>(Slot::shape_attribute, context, attribute,
                                                                       &found);
    using Read = Status*(const Attribute*, AttributeType, void*, size_t, size_t*);
    call<Read>(Slot::read_attribute, found, AttributeType::integer, &shape.back(), sizeof(int64_t), &bytes);
    names.back() = "";
    TensorInfo* raw = nullptr;
    call<Status*(TensorInfo**)>(Slot::create_tensor_info, &raw);
    const std::unique_ptr<TensorInfo, void (*)(TensorInfo*)> output(
        raw, function<void(TensorInfo*)>(Slot::release_tensor_info));
    call<Status*(TensorInfo*, const int64_t*, size_t)>(Slot::set_dimensions, raw, shape.data(), axes);
    call<Status*(TensorInfo*, const char**, size_t)>(Slot::set_symbolic_dimensions, raw, names.data(), axes);
    call<Status*(const ShapeContext*, size_t, const TensorInfo*)>(Slot::shape_set_output, context, size_t{0}, raw);
}

}  // namespace stepdown::ort
