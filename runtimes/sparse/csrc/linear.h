// A packed linear layer, y = activation(x W^T + bias), and how one is made from a stored weight.
#pragma once

#include <cstdint>
#include <memory>

#include "parallel.h"
#include "sparse_weight.h"

namespace stepdown {

// What a kernel may use, each with all that comes before it for its architecture. cpu.h finds it.
// avx2 has FMA; avx512 has F, BW, DQ and VL.
enum class Isa { scalar, avx2, avx512, avx512_vnni, avx512_vbmi2, neon, neon_dotprod };

constexpr bool has_avx512(Isa isa) { return isa == Isa::avx512 || isa == Isa::avx512_vnni || isa == Isa::avx512_vbmi2; }

class Linear {
public:
    virtual ~Linear() = default;
    // x [tokens][in] -> y [tokens][out], row-major, of any alignment; several calls may run at once.
    // Throws nothing but std::bad_alloc.
    virtual void run(const float* x, float* y, int64_t tokens, const Parallel& parallel) const = 0;
};

// Choose a kernel by ISA and pattern, and pack for it. Nothing of the arguments is kept. bias: [out].
std::unique_ptr<Linear> make_float_linear(const SparseWeight<float>& weight, const float* bias, Activation, Isa);
// scales: [out], w = scale * value.
std::unique_ptr<Linear> make_int8_linear(const SparseWeight<int8_t>& weight, const float* scales, const float* bias,
                                         Activation, Isa);

}  // namespace stepdown
