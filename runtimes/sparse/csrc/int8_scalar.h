// The INT8 kernel for any CPU and any block: the same integers as the others, and what they are compared with.
#pragma once

#include "linear.h"

namespace stepdown {

std::unique_ptr<Linear> make_int8_scalar(const SparseWeight<int8_t>& weight, const float* scales, const float* bias,
                                         Activation);

}  // namespace stepdown
