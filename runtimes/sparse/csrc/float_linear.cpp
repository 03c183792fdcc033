#include "float_scalar.h"
#include "linear.h"

namespace stepdown {

std::unique_ptr<Linear> make_float_linear(const SparseWeight<float>& weight, const float* bias, Activation activation,
                                          Isa) {
    return make_float_scalar(weight, bias, activation);
}

}  // namespace stepdown
