// What the library exports: the one function that ONNX Runtime calls when a session is to know the operators.
#include <map>
#include <mutex>

#include "attention_op.h"
#include "ort_api.h"
#include "sparse_ops.h"

namespace stepdown {
namespace {

// What one runtime knows of us: it keeps pointers to operators and domain as long as a session lives.
class Registration {
public:
    explicit Registration(ort::Table table)
        : api_(table),
          sparse_linear_(make_sparse_linear(table)),
          sparse_linear_int8_(make_sparse_linear_int8(table)),
          attention_(make_attention(table)),
          domain_(api_.create_domain("ai.stepdown")) {
        api_.add_to_domain(domain_, &sparse_linear_);
        api_.add_to_domain(domain_, &sparse_linear_int8_);
        api_.add_to_domain(domain_, &attention_);
    }
    Registration(const Registration&) = delete;
    Registration& operator=(const Registration&) = delete;

    void add_to(ort::SessionOptions* options) const { api_.add_domain(options, domain_); }

private:
    ort::Api api_;
    OwnOperator sparse_linear_, sparse_linear_int8_, attention_;
    ort::Domain* domain_;
};

struct Registrations {
    std::mutex mutex;
    std::map<ort::Table, Registration> by_table;
};

// A process may hold several runtimes, of several versions: each has a table, and gets a domain, of its own. None is
// released: that would be at exit, when the runtime may be gone already.
const Registration& find_registration(ort::Table table) {
    static Registrations& known = *new Registrations;
    const std::lock_guard<std::mutex> lock(known.mutex);
    return known.by_table.try_emplace(table, table).first->second;
}

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
    return ort::guarded(ort::Api(table), [&] { find_registration(table).add_to(options); });
}
