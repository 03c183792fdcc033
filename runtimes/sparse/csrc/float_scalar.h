// The FP32 kernel for any CPU and any block: right first, and what the others are compared with.
#pragma once

#include "linear.h"

namespace stepdown {

std::unique_ptr<Linear> make_float_scalar(const SparseWeight<float>& weight, const float* bias, Activation);

}  // namespace stepdown
