// The operator ScaledDotProductAttention, version 1, as ONNX Runtime calls it.
//
// ScaledDotProductAttention(Q float [batch, queries, features], K float [batch, keys, features], V as K,
//                           mask bool [batch, keys], optional) -> Y float [batch, queries, features]
// Attributes, all required: features, heads (integers; features is a multiple of heads), scale (float, above 0).
// Where the mask is false a key is padding. There is a key at least, unless there is no query.
#pragma once

#include "operator.h"

namespace stepdown {

OwnOperator make_attention(ort::Table);

}  // namespace stepdown
