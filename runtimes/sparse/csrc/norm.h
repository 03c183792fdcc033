// What stands behind a linear in a transformer: the residual is added, and each token is normalised.
//
// In: the answers of a layer and the residual. Out: LayerNorm(answers + residual) in place of the answers, as ONNX has
// it over the last axis: the mean first, then the variance of what is left, both in float. The sums are taken in the
// same order whatever the instruction set, so the bits are the same. A token that holds NaN or infinity answers NaN.
#pragma once

#include <cstdint>
#include <vector>

#include "linear.h"

namespace stepdown {

struct NormJob {
    int64_t width, tokens;
    const float *scale, *bias;  // [width]
    float epsilon;
    const float* residual;  // [tokens][width]
    float* y;               // [tokens][width]
};

using RunNorm = void (*)(const NormJob&);

void norm_scalar(const NormJob&);
void norm_avx2(const NormJob&);
void norm_avx512(const NormJob&);
void norm_neon(const NormJob&);

class Norm {
public:
    // scale and bias, [width], are copied.
    Norm(int64_t width, const float* scale, const float* bias, float epsilon, Isa);

    // y and residual are [tokens][width], anywhere in memory, and do not overlap.
    void run(const float* residual, float* y, int64_t tokens, const Parallel&) const;

private:
    int64_t width_;
    std::vector<float> scale_, bias_;
    float epsilon_;
    RunNorm run_;
};

}  // namespace stepdown
