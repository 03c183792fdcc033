#include "lanes_avx512.h"
#include "norm_tokens.h"

namespace stepdown {

void norm_avx512(const NormJob& job) { norm_tokens<Avx512Lanes>(job); }

}  // namespace stepdown
