#include "lanes_neon.h"
#include "norm_tokens.h"

namespace stepdown {

void norm_neon(const NormJob& job) { norm_tokens<NeonLanes>(job); }

}  // namespace stepdown
