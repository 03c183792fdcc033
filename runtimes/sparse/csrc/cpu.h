// Which kernels this CPU can run.
#pragma once

#include "linear.h"

namespace stepdown {

// The best that the CPU and its system can do; the environment variable STEPDOWN_SPARSE_ISA (scalar, avx2, avx512,
// avx512_vnni, avx512_vbmi2, neon, neon_dotprod) lowers it, for tests and to find the kernel at fault.
// Throws std::invalid_argument where it names what is not known or not there.
Isa find_isa();

}  // namespace stepdown
