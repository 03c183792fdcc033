#include "float_pack.h"

#include <algorithm>
#include <numeric>

#include "block_rows.h"

namespace stepdown {
namespace {

// About as many rows as have their sums for 64 tokens in 48 KiB; fewer where that leaves too few chunks to share out.
constexpr int64_t wanted_rows = 192, wanted_chunks = 4, fewest_rows = 64;

// One row of outputs, or four with the same columns.
struct Strip {
    std::vector<int32_t> columns;
    std::vector<float> values;  // [height][width] for each column
};

std::vector<Strip> cut_strips(const SparseWeight<float>& weight, const FloatPattern& pattern) {
    const Shape& shape = weight.shape;
    const int32_t height = pattern.shared ? group_rows : 1;
    std::vector<Strip> strips(static_cast<size_t>(shape.block_rows() * (shape.block_out / height)));
    for (int64_t row = 0; row < shape.block_rows(); ++row) {
        Strip* const first = strips.data() + row * (shape.block_out / height);
        visit_entries(weight, row, [&](int64_t column, const float* block) {
            for (int32_t at = 0; at < shape.block_size(); at += height * pattern.width) {
                // Strips from top to bottom, and the columns of each from left to right.
                const int32_t strip = at / (height * shape.block_in);
                const int32_t left = at % (height * shape.block_in) / height;
                float part[group_rows * group_rows];
                for (int32_t y = 0; y < height; ++y) {
                    std::copy_n(block + (strip * height + y) * shape.block_in + left, pattern.width,
                                part + y * pattern.width);
                }
                float* const end = part + height * pattern.width;
                const int64_t input = column * shape.block_in + left;
                if (input >= shape.in || std::all_of(part, end, [](float value) { return value == 0; })) continue;
                first[strip].columns.push_back(static_cast<int32_t>(input));
                first[strip].values.insert(first[strip].values.end(), part, end);
            }
        });
    }
    strips.resize(static_cast<size_t>((shape.out + height - 1) / height));
    return strips;
}

// Cut rows into chunks of about the same number of non-zeros; each ends at a multiple of chunk_row_unit.
std::vector<int64_t> cut_chunks(const std::vector<Strip>& strips, int64_t height, int64_t out) {
    const int64_t units = (out + chunk_row_unit - 1) / chunk_row_unit;
    std::vector<int64_t> below(static_cast<size_t>(units + 1));
    for (int64_t strip = 0; strip < static_cast<int64_t>(strips.size()); ++strip) {
        // One more for each, so that rows without non-zeros are shared out too.
        below[strip * height / chunk_row_unit + 1] += 1 + static_cast<int64_t>(strips[strip].columns.size());
    }
    std::partial_sum(below.begin(), below.end(), below.begin());
    const int64_t few = std::min(wanted_chunks, (out + fewest_rows - 1) / fewest_rows);
    const int64_t count = std::max(few, (out + wanted_rows - 1) / wanted_rows);
    std::vector<int64_t> ends;
    for (int64_t chunk = 1; chunk < count; ++chunk) {
        const auto at = std::lower_bound(below.begin(), below.end(), below.back() * chunk / count) - below.begin();
        if (at > (ends.empty() ? 0 : ends.back() / chunk_row_unit)) ends.push_back(at * chunk_row_unit);
    }
    if (ends.empty() || ends.back() < out) ends.push_back(out);
    ends.back() = std::min(ends.back(), out);
    return ends;
}

// The entries of a strip that one tile holds.
struct Run {
    int64_t strip, first, count;
};

}  // namespace

FloatPattern find_float_pattern(const Shape& shape) {
    return {shape.block_out % group_rows == 0, shape.block_in % group_rows == 0 ? group_rows : 1};
}

PackedFloat::PackedFloat(const SparseWeight<float>& weight, const float* bias, int32_t depth) {
    const Shape& shape = weight.shape;
    const FloatPattern pattern = find_float_pattern(shape);
    const int64_t height = pattern.shared ? group_rows : 1;
    const int64_t tile_count = (shape.in + depth - 1) / depth;
    const std::vector<Strip> strips = cut_strips(weight, pattern);

    struct Offsets {
        size_t groups, group_count, values, columns;
    };
    std::vector<Offsets> offsets;
    std::vector<size_t> bias_offsets;
    std::vector<Run> runs;
    int64_t steps = 0, first_row = 0;
    for (const int64_t end : cut_chunks(strips, height, shape.out)) {
        const int64_t rows = end - first_row;
        chunks_.push_back({first_row, rows, nullptr, nullptr});
        bias_offsets.push_back(bias_.size());
        bias_.insert(bias_.end(), bias + first_row, bias + end);
        bias_.resize(bias_offsets.back() + static_cast<size_t>(round_up(rows, chunk_row_unit)));
        const int64_t first_strip = first_row / height, strip_count = (rows + height - 1) / height;
        std::vector<int64_t> done(static_cast<size_t>(strip_count));
        for (int64_t tile = 0; tile < tile_count; ++tile) {
            offsets.push_back({groups_.size(), 0, values_.size(), columns_.size()});
            const int64_t left = tile * depth;
            runs.clear();
            for (int64_t strip = 0; strip < strip_count; ++strip) {
                const std::vector<int32_t>& columns = strips[first_strip + strip].columns;
                const auto begin = columns.begin() + done[strip];
                const auto stop = std::lower_bound(begin, columns.end(), left + depth);
                runs.push_back({strip, done[strip], stop - begin});
                done[strip] += stop - begin;
            }
            std::stable_sort(runs.begin(), runs.end(), [](const Run& a, const Run& b) { return a.count > b.count; });
            const size_t in_group = pattern.shared ? 1 : group_rows;
            for (size_t at = 0; at < runs.size(); at += in_group) {
                FloatGroup group{static_cast<int32_t>(runs[at].count), {}};
                if (group.steps == 0 && tile > 0) break;
                // Rows past the chunk's: sums that nobody reads.
                for (int32_t row = 0; row < group_rows; ++row) {
                    const size_t of = at + static_cast<size_t>(row);
                    const int64_t number = pattern.shared     ? runs[at].strip * height + row
                                           : of < runs.size() ? runs[of].strip
                                                              : static_cast<int64_t>(of);
                    group.rows[row] = static_cast<uint16_t>(number);
                }
                for (int32_t step = 0; step < group.steps; ++step) {
                    for (size_t part = 0; part < in_group; ++part) {
                        const bool there = at + part < runs.size() && step < runs[at + part].count;
                        if (!there) {
                            columns_.push_back(static_cast<uint8_t>(depth));
                            values_.insert(values_.end(), static_cast<size_t>(pattern.width), 0.0f);
                            continue;
                        }
                        const Run& run = runs[at + part];
                        const Strip& strip = strips[first_strip + run.strip];
                        const int64_t entry = run.first + step;
                        const float* const block = strip.values.data() + entry * height * pattern.width;
                        columns_.push_back(static_cast<uint8_t>(strip.columns[entry] - left));
                        for (int32_t x = 0; x < pattern.width; ++x) {
                            for (int32_t y = 0; y < height; ++y) values_.push_back(block[y * pattern.width + x]);
                        }
                    }
                }
                steps += group.steps;
                groups_.push_back(group);
                ++offsets.back().group_count;
            }
        }
        first_row = end;
    }
    // Kernels step along these even where there is nothing to read, and no step may leave a null pointer.
    values_.reserve(1);
    columns_.reserve(1);
    for (const Offsets& at : offsets) {
        tiles_.push_back({groups_.data() + at.groups, static_cast<int64_t>(at.group_count), values_.data() + at.values,
                          columns_.data() + at.columns});
    }
    for (size_t chunk = 0; chunk < chunks_.size(); ++chunk) {
        chunks_[chunk].bias = bias_.data() + bias_offsets[chunk];
        chunks_[chunk].tiles = tiles_.data() + chunk * static_cast<size_t>(tile_count);
    }
    view_ = {shape, pattern, depth, tile_count, chunks_.data(), static_cast<int64_t>(chunks_.size()), steps};
}

}  // namespace stepdown
