// The operators SparseLinear and SparseLinearInt8, version 1, as ONNX Runtime calls them.
//
// SparseLinear(X float [..., in], values float, gaps uint8, row_starts int32, bias float [out]) -> Y float [..., out]
// SparseLinearInt8(X float [..., in], values int8, gaps, row_starts, scales float [out], bias) -> Y float [..., out]
// and at the end of both, all three or none: residual float [..., out], norm_scale float [out], norm_bias float [out]:
// then Y = LayerNormalization(Y + residual) over the last axis, with attribute epsilon (float), required with them.
// Attributes, all required: out_features, in_features, block_out, block_in (integers), activation (string). All inputs
// but X and residual are constant initializers.
#pragma once

#include "operator.h"

namespace stepdown {

OwnOperator make_sparse_linear(ort::Table);
OwnOperator make_sparse_linear_int8(ort::Table);

}  // namespace stepdown
