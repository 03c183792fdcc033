#include "float_pack.h"

#include <algorithm>
#include <numeric>

#include "block_rows.h"

namespace stepdown {
namespace {

// The sums of a chunk for 64 tokens take 48 KiB; fewer rows where that leaves too few chunks to share out.
constexpr int64_t wanted_rows = 192, wanted_chunks = 4, fewest_rows = 64;
// Rows without non-zeros weigh little, and could all come into one chunk: its sums would leave the cache, and the
// numbers of its rows the 16 bits of FloatGroup.
constexpr int64_t most_rows = 4 * wanted_rows;

// One row of outputs, or four with the same columns.
struct Strip {
    std::vector<int32_t> columns;
    std::vector<float> values;  // [height][width] for each column
};

int32_t strip_height(const FloatPattern& pattern) { return pattern.shared ? group_rows : 1; }

std::vector<Strip> cut_strips(const SparseWeight<float>& weight, const FloatPattern& pattern) {
    const Shape& shape = weight.shape;
    const int32_t height = strip_height(pattern), width = pattern.width;
    const int64_t in_block = shape.block_out / height;
    std::vector<Strip> strips(static_cast<size_t>(shape.block_rows() * in_block));
    for (int64_t row = 0; row < shape.block_rows(); ++row) {
        visit_entries(weight, row, [&](int64_t column, const float* block) {
            for (int32_t top = 0; top < shape.block_out; top += height) {
                for (int32_t left = 0; left < shape.block_in; left += width) {
                    const int64_t input = column * shape.block_in + left;
                    float part[group_rows * group_rows];
                    float* end = part;
                    for (int32_t y = top; y < top + height; ++y) {
                        end = std::copy_n(block + y * shape.block_in + left, width, end);
                    }
                    if (input >= shape.in || std::all_of(part, end, [](float x) { return x == 0; })) continue;
                    Strip& strip = strips[row * in_block + top / height];
                    strip.columns.push_back(static_cast<int32_t>(input));
                    strip.values.insert(strip.values.end(), part, end);
                }
            }
        });
    }
    strips.resize(static_cast<size_t>((shape.out + height - 1) / height));
    return strips;
}

// Where chunks of about the same number of non-zeros end: at multiples of chunk_row_unit, the last one at `out`.
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
    for (int64_t chunk = 1; chunk <= count; ++chunk) {
        const auto unit = std::lower_bound(below.begin(), below.end(), below.back() * chunk / count) - below.begin();
        const int64_t end = chunk == count ? out : std::min<int64_t>(out, unit * chunk_row_unit);
        for (int64_t last = ends.empty() ? 0 : ends.back(); last < end; last = ends.back()) {
            ends.push_back(std::min(end, last + most_rows));
        }
    }
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

// Packs chunk after chunk. Tiles hold offsets until nothing grows any more.
class FloatPacker {
public:
    FloatPacker(const SparseWeight<float>& weight, int32_t depth, PackedFloat& packed)
        : shape_(weight.shape),
          pattern_(find_float_pattern(weight.shape)),
          depth_(depth),
          tiles_((weight.shape.in + depth - 1) / depth),
          strips_(cut_strips(weight, pattern_)),
          packed_(packed) {}

    void pack(const float* bias) {
        int64_t first = 0;
        for (const int64_t end : cut_chunks(strips_, strip_height(pattern_), shape_.out)) {
            pack_chunk(first, end, bias);
            first = end;
        }
        point();
    }

private:
    struct Offsets {
        size_t groups, values, columns;
    };

    void pack_chunk(int64_t first, int64_t end, const float* bias) {
        const int32_t height = strip_height(pattern_);
        packed_.chunks_.push_back({first, end - first, nullptr, nullptr});
        bias_starts_.push_back(packed_.bias_.size());
        packed_.bias_.insert(packed_.bias_.end(), bias + first, bias + end);
        packed_.bias_.resize(bias_starts_.back() + static_cast<size_t>(round_up(end - first, chunk_row_unit)));
        const Strip* const strips = strips_.data() + first / height;
        std::vector<Run> runs(static_cast<size_t>((end - first + height - 1) / height));
        std::vector<int64_t> done(runs.size());
        for (int64_t tile = 0; tile < tiles_; ++tile) {
            for (size_t strip = 0; strip < runs.size(); ++strip) {
                const std::vector<int32_t>& columns = strips[strip].columns;
                const auto from = columns.begin() + done[strip];
                const int64_t count = std::lower_bound(from, columns.end(), (tile + 1) * depth_) - from;
                runs[strip] = {static_cast<int64_t>(strip), done[strip], count};
                done[strip] += count;
            }
            std::stable_sort(runs.begin(), runs.end(), [](const Run& a, const Run& b) { return a.count > b.count; });
            pack_tile(strips, runs, tile);
        }
    }

    void pack_tile(const Strip* strips, const std::vector<Run>& runs, int64_t tile) {
        starts_.push_back({packed_.groups_.size(), packed_.values_.size(), packed_.columns_.size()});
        const size_t in_group = pattern_.shared ? 1 : group_rows;
        for (size_t at = 0; at < runs.size(); at += in_group) {
            FloatGroup group{static_cast<int32_t>(runs[at].count), {}};
            if (group.steps == 0 && tile > 0) break;
            for (size_t row = 0; row < group_rows; ++row) {
                const size_t run = at + row;
                const int64_t number = pattern_.shared     ? runs[at].strip * group_rows + static_cast<int64_t>(row)
                                       : run < runs.size() ? runs[run].strip
                                                           : static_cast<int64_t>(run);
                group.rows[row] = static_cast<uint16_t>(number);
            }
            for (int32_t step = 0; step < group.steps; ++step) {
                for (size_t run = at; run < at + in_group; ++run) {
                    const bool there = run < runs.size() && step < runs[run].count;
                    there ? pack_entry(strips[runs[run].strip], runs[run].first + step, tile) : pack_nothing();
                }
            }
            packed_.groups_.push_back(group);
            steps_ += group.steps;
        }
    }

    void pack_entry(const Strip& strip, int64_t entry, int64_t tile) {
        const int32_t height = strip_height(pattern_);
        const float* const block = strip.values.data() + entry * height * pattern_.width;
        packed_.columns_.push_back(static_cast<uint8_t>(strip.columns[entry] - tile * depth_));
        for (int32_t x = 0; x < pattern_.width; ++x) {
            for (int32_t y = 0; y < height; ++y) packed_.values_.push_back(block[y * pattern_.width + x]);
        }
    }

    void pack_nothing() {
        packed_.columns_.push_back(static_cast<uint8_t>(depth_));
        packed_.values_.insert(packed_.values_.end(), static_cast<size_t>(pattern_.width), 0.0f);
    }

    void point() {
        // Kernels step along these even where there is nothing to read, and no step may leave a null pointer.
        packed_.values_.reserve(1);
        packed_.columns_.reserve(1);
        for (size_t tile = 0; tile < starts_.size(); ++tile) {
            const Offsets& at = starts_[tile];
            const size_t end = tile + 1 < starts_.size() ? starts_[tile + 1].groups : packed_.groups_.size();
            packed_.tiles_.push_back({packed_.groups_.data() + at.groups, static_cast<int64_t>(end - at.groups),
                                      packed_.values_.data() + at.values, packed_.columns_.data() + at.columns});
        }
        for (size_t chunk = 0; chunk < packed_.chunks_.size(); ++chunk) {
            packed_.chunks_[chunk].bias = packed_.bias_.data() + bias_starts_[chunk];
            packed_.chunks_[chunk].tiles = packed_.tiles_.data() + chunk * static_cast<size_t>(tiles_);
        }
        packed_.view_ = {
            shape_, pattern_, depth_, tiles_, packed_.chunks_.data(), static_cast<int64_t>(packed_.chunks_.size()),
            steps_};
    }

    const Shape shape_;
    const FloatPattern pattern_;
    const int32_t depth_;
    const int64_t tiles_;
    const std::vector<Strip> strips_;
    PackedFloat& packed_;
    std::vector<Offsets> starts_;
    std::vector<size_t> bias_starts_;
    int64_t steps_ = 0;
};

PackedFloat::PackedFloat(const SparseWeight<float>& weight, const float* bias, int32_t depth) {
    FloatPacker(weight, depth, *this).pack(bias);
}

}  // namespace stepdown
