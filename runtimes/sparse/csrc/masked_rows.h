// A weight as an instruction set reads it for one token that can spread packed values over a vector: for each four
// outputs, a vector of columns at a time, which of them are not zero; and those values, one after the other.
//
// At 70 % zeros that is 0.33 (FP32) and 0.43 (INT8) of the bytes of a dense weight, which are what one token waits for
// where a model is larger than the caches. Plain pointers, as in float_pack.h.
#pragma once

#include <cstdint>

namespace stepdown {

constexpr int32_t masked_group = 4;

template <class T>
struct MaskFor;
template <>
struct MaskFor<float> {
    using Type = uint16_t;
};
template <>
struct MaskFor<int8_t> {
    using Type = uint64_t;
};

template <class T>
struct MaskedRows {
    using Mask = typename MaskFor<T>::Type;
    static constexpr int64_t lanes = 8 * sizeof(Mask);  // columns of a block

    int64_t blocks;         // of a row; columns past the last are zeros
    const Mask* masks;      // [group][block][masked_group]
    const T* values;        // in the same order; `lanes` of them may be read past the last
    const int64_t* starts;  // of each group's values
};

}  // namespace stepdown
