// The INT8 kernels of each ISA, for the blocks of a shape.
#pragma once

#include "int8_layer.h"

namespace stepdown {

// shares_units: groups of 4 outputs where blocks have one; a kernel for blocks of more outputs always has them.
Int8Kernel int8_avx2(const Shape&, bool shares_units);
Int8Kernel int8_avx512(const Shape&, bool shares_units);
Int8Kernel int8_vnni(const Shape&, bool shares_units);
Int8Kernel int8_vbmi2(const Shape&, bool shares_units);
Int8Kernel int8_neon(const Shape&, bool shares_units);
Int8Kernel int8_dotprod(const Shape&, bool shares_units);

}  // namespace stepdown
