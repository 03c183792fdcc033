// Turns a stored INT8 weight into what a vector kernel reads (int8_layer.h).
#pragma once

#include <vector>

#include "int8_layer.h"

namespace stepdown {

class Int8Strip;

class PackedInt8 {
public:
    PackedInt8(const SparseWeight<int8_t>& weight, const float* scales, const float* bias, Activation activation,
               const Int8Kernel& kernel);

    Int8Layer layer() const;
    int64_t strips() const { return static_cast<int64_t>(weights_start_.size()) - 1; }
    // What the strips before this one cost, in units of weights.
    int64_t work_before(int64_t strip) const { return weights_start_[strip]; }

private:
    // What is multiplied for one list in one slab.
    struct Entries {
        std::vector<uint16_t> places;
        std::vector<uint32_t> words;  // [entry][row]
    };
    Entries list_units(const Int8Strip&, int64_t row, int64_t first_column, int64_t last_column) const;
    Entries gather_columns(const Int8Strip&, int64_t row, int64_t first_column, int64_t last_column) const;
    void append(const Entries&);
    void close_strip();

    Shape shape_;
    Activation activation_;
    Int8Kernel kernel_;
    int64_t list_rows_;  // outputs that share a list
    std::vector<float> scales_, bias_;
    std::vector<int32_t> sums_;
    std::vector<uint16_t> counts_, places_;
    std::vector<uint32_t> weights_;
    std::vector<int64_t> counts_start_, places_start_, weights_start_;
};

// How many entries the lists have where so many outputs of a weight share one.
int64_t count_int8_entries(const SparseWeight<int8_t>& weight, Unit unit, int64_t rows);

}  // namespace stepdown
