// The part of ONNX Runtime's C interface that a custom operator needs, in our own words: its wheel brings no header.
//
// The interface is a table of functions whose order never changes; a function is known by its place (Slot), the same in
// every release since 1.17. An operator is a struct of callbacks that the runtime reads (Operator). Opaque types stay
// opaque. Nothing here is linked: the runtime hands its table over when it loads the library.
#pragma once

#include <cstddef>
#include <cstdint>

namespace stepdown::ort {

// Version 17 (ONNX Runtime 1.17): the first with ParallelFor. Later releases answer for it with the same table.
constexpr uint32_t api_version = 17;

struct Status;
struct Value;
struct TensorInfo;
struct SessionOptions;
struct Domain;
struct KernelInfo;
struct KernelContext;
struct ShapeContext;
struct Attribute;

enum class ErrorCode : int32_t { fail = 1, invalid_argument = 2 };
enum class ElementType : int32_t { undefined = 0, float32 = 1, uint8 = 2, int8 = 3, int32 = 6, boolean = 9 };
enum class AttributeType : int32_t { integer = 1 };
enum class Characteristic : int32_t { required = 0, optional = 1 };
enum class MemoryType : int32_t { standard = 0 };

enum class Slot : size_t {
    create_status = 0,
    get_error_message = 2,
    create_domain = 26,
    add_to_domain = 27,
    add_domain = 28,
    tensor_data = 51,
    create_tensor_info = 57,
    set_dimensions = 59,
    element_type = 60,
    dimension_count = 61,
    dimensions = 62,
    symbolic_dimensions = 63,
    element_count = 64,
    tensor_info = 65,
    float_attribute = 85,
    integer_attribute = 86,
    string_attribute = 87,
    kernel_input = 90,
    kernel_output = 91,
    release_status = 93,
    release_tensor_info = 99,
    input_count = 230,
    input_name = 232,
    constant_input = 249,
    shape_input = 268,
    shape_attribute = 269,
    shape_set_output = 270,
    set_symbolic_dimensions = 271,
    read_attribute = 272,
    parallel_for = 274,
};

// The table, as an array of untyped functions.
using Function = void (*)();
using Table = const Function*;

struct Base {
    Table (*get_table)(uint32_t version);
    const char* (*get_version)();
};

// A custom operator. What may stay null, as measured on 1.17 to 1.31: the callbacks of interfaces before 16, those of
// variadic inputs and outputs, and those about memory that is shared.
struct Operator {
    uint32_t version;
    void* (*create_kernel_before_16)(const Operator*, Table, const KernelInfo*);
    const char* (*name)(const Operator*);
    const char* (*provider)(const Operator*);
    ElementType (*input_type)(const Operator*, size_t index);
    size_t (*input_count)(const Operator*);
    ElementType (*output_type)(const Operator*, size_t index);
    size_t (*output_count)(const Operator*);
    void (*compute_before_16)(void* kernel, KernelContext*);
    void (*destroy_kernel)(void* kernel);
    Characteristic (*input_characteristic)(const Operator*, size_t index);
    Characteristic (*output_characteristic)(const Operator*, size_t index);
    MemoryType (*input_memory)(const Operator*, size_t index);
    int32_t (*variadic_input_least)(const Operator*);
    int32_t (*variadic_input_same)(const Operator*);
    int32_t (*variadic_output_least)(const Operator*);
    int32_t (*variadic_output_same)(const Operator*);
    Status* (*create_kernel)(const Operator*, Table, const KernelInfo*, void** kernel);
    Status* (*compute)(void* kernel, KernelContext*);
    Status* (*infer_shape)(const Operator*, ShapeContext*);
    int32_t (*first_opset)(const Operator*);
    int32_t (*last_opset)(const Operator*);
    size_t (*may_inplace)(int32_t** input, int32_t** output);
    void (*release_may_inplace)(int32_t* input, int32_t* output);
    size_t (*aliases)(int32_t** input, int32_t** output);
    void (*release_aliases)(int32_t* input, int32_t* output);
};
static_assert(sizeof(Operator) == 26 * sizeof(void*), "the runtime reads 26 words");

}  // namespace stepdown::ort
