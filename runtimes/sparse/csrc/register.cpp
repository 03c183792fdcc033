// What the library exports: the one function that ONNX Runtime calls when a session is to know the operators.
#include "ort_api.h"
#include "sparse_ops.h"

namespace stepdown {
namespace {

// The runtime keeps pointers to operators and domain as long as a session lives, which is no longer than the library.
class Registration {
public:
    explicit Registration(ort::Table table)
        : api_(table),
          sparse_linear_(make_sparse_linear(table)),
          sparse_linear_int8_(make_sparse_linear_int8(table)),
          domain_(api_.create_domain("ai.stepdown")) {
        api_.add_to_domain(domain_, &sparse_linear_);
        api_.add_to_domain(domain_, &sparse_linear_int8_);
    }
    Registration(const Registration&) = delete;
    Registration& operator=(const Registration&) = delete;
    ~Registration() { api_.release_domain(domain_); }

    void add_to(ort::SessionOptions* options) const { api_.add_domain(options, domain_); }

private:
    ort::Api api_;
    SparseOperator sparse_linear_, sparse_linear_int8_;
    ort::Domain* domain_;
};

}  // namespace
}  // namespace stepdown

extern "C" __attribute__((visibility("default"))) stepdown::ort::Status* RegisterCustomOps(
    stepdown::ort::SessionOptions* options, const stepdown::ort::Base* base) {
    using namespace stepdown;
    const ort::Table table = base->get_table(ort::api_version);
    // A runtime before 1.17 has no table for us, but its oldest one can say so.
    if (table == nullptr) {
        const ort::Api oldest(base->get_table(1));
        return oldest.create_status(ort::ErrorCode::fail, "sparse kernels need ONNX Runtime 1.17 or later");
    }
    return ort::guarded(ort::Api(table), [&] {
        static const Registration registration(table);
        registration.add_to(options);
    });
}
