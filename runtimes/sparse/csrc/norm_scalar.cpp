#include "lanes_scalar.h"
#include "norm_tokens.h"

namespace stepdown {

void norm_scalar(const NormJob& job) { norm_tokens<ScalarLanes>(job); }

}  // namespace stepdown
