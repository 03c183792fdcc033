// TEMPORARY until activation.h
#pragma once
#include <cmath>
#include "sparse_weight.h"
namespace stepdown {
inline float activate_scalar(float x, Activation a) {
    switch (a) {
        case Activation::none: return x;
        case Activation::relu: return x < 0 ? 0 : x;
        case Activation::gelu: return float(0.5 * x * (1 + std::erf(x * 0.70710678118654752440)));
        case Activation::gelu_tanh: return float(0.5 * x * (1 + std::tanh(0.79788456080286535588 * (x + 0.044715 * double(x) * x * x))));
    }
    return x;
}
}
