#include "masked_pack.h"

#include <algorithm>
#include <cstring>

namespace stepdown {
namespace {

// A chunk as it was before it was packed, [rows][in]; the groups of its tiles are in no order.
void read_chunk(const FloatWeight& weight, const FloatChunk& chunk, std::vector<float>& dense) {
    const int64_t in = weight.shape.in;
    dense.assign(static_cast<size_t>(chunk.rows * in), 0);
    for (int64_t at = 0; at < weight.tiles; ++at) {
        const FloatTile& tile = chunk.tiles[at];
        const float* value = tile.values;
        const uint8_t* column = tile.columns;
        for (const FloatGroup* group = tile.groups; group < tile.groups + tile.group_count; ++group) {
            for (int32_t entry = 0; entry < group->steps * group_rows; ++entry, ++value, ++column) {
                if (*column < weight.depth)
                    dense[group->rows[entry % group_rows] * in + at * weight.depth + *column] = *value;
            }
        }
    }
}

// A strip, [strip_rows][in].
void read_strip(const Int8Layer& layer, int64_t strip, std::vector<int8_t>& dense) {
    dense.assign(static_cast<size_t>(strip_rows * layer.in), 0);
    const uint16_t* count = layer.counts + layer.counts_start[strip];
    const uint16_t* place = layer.places + layer.places_start[strip];
    const uint32_t* word = layer.weights + layer.weights_start[strip];
    for (int64_t slab = 0; slab < layer.slabs; ++slab) {
        for (int64_t list = 0; list < strip_rows; list += layer.list_rows, ++count) {
            for (const uint16_t* const end = place + *count; place < end; ++place) {
                const int64_t column = (slab * layer.slab_units + *place) * unit_columns(Unit::quad);
                const int64_t width = std::min(unit_columns(Unit::quad), layer.in - column);
                for (int64_t row = list; row < list + layer.list_rows; ++row, ++word) {
                    std::memcpy(dense.data() + row * layer.in + column, word, static_cast<size_t>(width));
                }
            }
        }
    }
}

}  // namespace

template <class T>
typename PackedMasks<T>::Mask PackedMasks<T>::take(const T* row, int64_t first_column) {
    Mask mask = 0;
    const int64_t end = std::min(first_column + lanes, in_);
    for (int64_t column = first_column; column < end; ++column) {
        if (row[column] == 0) continue;
        mask |= static_cast<Mask>(Mask{1} << (column - first_column));
        values_.push_back(row[column]);
    }
    return mask;
}

template <class T>
void PackedMasks<T>::append(const T* dense, int64_t rows) {
    for (int64_t group = 0; group < rows; group += masked_group) {
        starts_.push_back(static_cast<int64_t>(values_.size()));
        for (int64_t block = 0; block < blocks_; ++block) {
            for (int64_t row = group; row < group + masked_group; ++row) {
                masks_.push_back(row < rows ? take(dense + row * in_, block * lanes) : Mask{0});
            }
        }
    }
}

template <class T>
void PackedMasks<T>::close() {
    values_.resize(values_.size() + lanes);
    values_.shrink_to_fit();
    masks_.shrink_to_fit();
}

PackedMasks<float> pack_masks(const FloatWeight& weight) {
    PackedMasks<float> masks(weight.shape.in);
    std::vector<float> dense;
    for (int64_t at = 0; at < weight.chunk_count; ++at) {
        read_chunk(weight, weight.chunks[at], dense);
        masks.append(dense.data(), weight.chunks[at].rows);
    }
    masks.close();
    return masks;
}

PackedMasks<int8_t> pack_masks(const Int8Layer& layer) {
    PackedMasks<int8_t> masks(layer.in);
    std::vector<int8_t> dense;
    for (int64_t strip = 0; strip * strip_rows < layer.out; ++strip) {
        read_strip(layer, strip, dense);
        masks.append(dense.data(), strip_rows);
    }
    masks.close();
    return masks;
}

}  // namespace stepdown
