// Brings a packed weight into rows with masks (masked_rows.h).
#pragma once

#include <vector>

#include "float_pack.h"
#include "int8_layer.h"
#include "masked_rows.h"

namespace stepdown {

template <class T>
class PackedMasks {
public:
    using Mask = typename MaskedRows<T>::Mask;

    explicit PackedMasks(int64_t in) : in_(in), blocks_((in + lanes - 1) / lanes) {}

    // Outputs that follow the ones before, [rows][in]; groups are filled up with outputs of zeros.
    void append(const T* dense, int64_t rows);
    // All is appended: nothing is held in reserve any more.
    void close();
    MaskedRows<T> view() const { return {blocks_, masks_.data(), values_.data(), starts_.data()}; }

private:
    static constexpr int64_t lanes = MaskedRows<T>::lanes;

    Mask take(const T* row, int64_t first_column);

    int64_t in_, blocks_;
    std::vector<Mask> masks_;
    std::vector<T> values_;
    std::vector<int64_t> starts_;
};

// Of a weight whose groups do not share columns, of single columns.
PackedMasks<float> pack_masks(const FloatWeight& weight);
// Of a layer of quads whose lists are not gathered.
PackedMasks<int8_t> pack_masks(const Int8Layer& layer);

}  // namespace stepdown
