#include "lanes_avx2.h"
#include "norm_tokens.h"

namespace stepdown {

void norm_avx2(const NormJob& job) { norm_tokens<Avx2Lanes>(job); }

}  // namespace stepdown
