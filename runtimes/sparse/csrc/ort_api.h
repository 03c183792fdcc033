// ONNX Runtime's functions with their types, and its status turned into an exception.
//
// In: the table that the runtime hands over. Out: plain values. Throws Error, which a callback of the runtime turns
// back into a status (guarded): no exception crosses the interface.
#pragma once

#include <cstdint>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "ort_abi.h"

namespace stepdown::ort {

// The runtime refused a call.
class Error : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

// A tensor as the runtime holds it.
struct Tensor {
    ElementType type;
    std::vector<int64_t> shape;
    void* data;
};

class Api {
public:
    explicit Api(Table table) : table_(table) {}

    Domain* create_domain(const char* name) const;
    void add_to_domain(Domain*, const Operator*) const;
    void add_domain(SessionOptions*, Domain*) const;

    // These throw std::invalid_argument where the attribute is missing or of another type.
    int64_t integer_attribute(const KernelInfo*, const char* name) const;
    std::string string_attribute(const KernelInfo*, const char* name) const;
    // Nothing where it is missing or of another type.
    std::optional<float> find_float_attribute(const KernelInfo*, const char* name) const;
    // Whether the node names an input there.
    bool has_input(const KernelInfo*, size_t index) const;
    // The initializer that is an input of the node; throws where the input is computed in the graph.
    Tensor constant_input(const KernelInfo*, size_t index) const;

    Tensor input(KernelContext*, size_t index) const;
    float* output(KernelContext*, size_t index, const std::vector<int64_t>& shape) const;
    // Calls body(data, i) for each i in [0, total) on the threads of the session; the caller takes part.
    void parallel_for(const KernelContext*, void (*body)(void*, size_t), size_t total, void* data) const;

    // Give output 0 the shape of input 0, the last axis replaced; where a part is not known, say nothing.
    void infer_last_axis(ShapeContext*, const char* attribute) const;

    Status* create_status(ErrorCode, const char* message) const;

private:
    template <class F, class... Arguments>
    void call(Slot, Arguments...) const;
    template <class F>
    F* function(Slot slot) const {
        return reinterpret_cast<F*>(table_[static_cast<size_t>(slot)]);
    }
    void check(Status*) const;
    Tensor describe(const Value*) const;

    Table table_;
};

// Run body and turn what it throws into a status of the runtime. Returns null where nothing was thrown.
template <class Body>
Status* guarded(const Api& api, const Body& body) noexcept {
    try {
        body();
        return nullptr;
    } catch (const std::invalid_argument& error) {
        return api.create_status(ErrorCode::invalid_argument, error.what());
    } catch (const std::bad_alloc&) {
        return api.create_status(ErrorCode::fail, "there is not enough memory");
    } catch (const std::exception& error) {
        return api.create_status(ErrorCode::fail, error.what());
    } catch (...) {
        return api.create_status(ErrorCode::fail, "something was thrown that is no exception");
    }
}

}  // namespace stepdown::ort
