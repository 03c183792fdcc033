#include "int8_scalar.h"
#include "linear.h"

namespace stepdown {

std::unique_ptr<Linear> make_int8_linear(const SparseWeight<int8_t>& weight, const float* scales, const float* bias,
                                         Activation activation, Isa) {
    return make_int8_scalar(weight, scales, bias, activation);
}

}  // namespace stepdown
