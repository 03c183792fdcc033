// INT8 layers: chooses a kernel by ISA and pattern, and shares the work out among threads.
#include <algorithm>

#include "int8_pack.h"
#include "int8_scalar.h"
#include "int8_vector.h"
#include "linear.h"
#include "made_once.h"
#include "masked_pack.h"
#include "scratch.h"

namespace stepdown {
namespace {

// Tasks that keep each thread of a pool of unknown size busy to the end.
constexpr int64_t enough_tasks = 8;
// What costs less, in weights times vectors of tokens, is not worth a task of its own: about 5 us, and handing a task
// out takes 1 to 4.
constexpr int64_t least_work = 16384;
// The same for one token in rows with masks, in weights, zeros included: enough tasks that no thread waits long for the
// last, which made layers of 576 x 1536 from memory 1.15 times as fast as three.
constexpr int64_t least_masked_work = int64_t{1} << 16;

class Int8Vector final : public Linear {
public:
    Int8Vector(const SparseWeight<int8_t>& weight, const float* scales, const float* bias, Activation activation,
               const Int8Kernel& kernel)
        : kernel_(kernel),
          packed_(weight, scales, bias, activation, kernel),
          layer_(packed_.layer()),
          panel_tokens_(kernel.vector_tokens * kernel.panel_vectors) {}

    void run(const float* x, float* y, int64_t tokens, const Parallel& parallel) const override {
        if (tokens == 1 && kernel_.multiply_masked != nullptr) return run_masked(x, y, parallel);
        const int64_t panels = (tokens + panel_tokens_ - 1) / panel_tokens_;
        if (panels >= enough_tasks) {
            for_each(parallel, panels, [&](int64_t panel) {
                char* const quantised = take_panels(1);
                quantise(x, tokens, panel, quantised);
                multiply(quantised, tokens, panel, 0, packed_.strips(), y);
            });
            return;
        }
        if (panels == 0) return;
        // The caller's own: no task asks for more.
        char* const quantised = take_panels(panels);
        for_each(parallel, panels,
                 [&](int64_t panel) { quantise(x, tokens, panel, quantised + panel * panel_bytes()); });
        const int64_t shares = count_shares(tokens, panels);
        for_each(parallel, panels * shares, [&](int64_t task) {
            const int64_t panel = task / shares, share = task % shares;
            multiply(quantised + panel * panel_bytes(), tokens, panel, first_strip(share, shares),
                     first_strip(share + 1, shares), y);
        });
    }

private:
    void run_masked(const float* x, float* y, const Parallel& parallel) const {
        const MaskedRows<int8_t> rows = masked_.get([this] { return pack_masks(layer_); }).view();
        char* const quantised = take_panels(1);
        quantise(x, 1, 0, quantised);
        const int64_t strips = packed_.strips();
        const int64_t worth = layer_.out * layer_.in / least_masked_work;
        const int64_t shares = std::max<int64_t>(1, std::min({worth, strips, enough_tasks}));
        for_each(parallel, shares, [&](int64_t share) {
            for (int64_t strip = share * strips / shares; strip < (share + 1) * strips / shares; ++strip) {
                kernel_.multiply_masked(layer_, rows, quantised, strip, y);
            }
        });
    }

    int64_t panel_bytes() const { return int8_panel_bytes(layer_, panel_tokens_); }

    char* take_panels(int64_t panels) const {
        return static_cast<char*>(thread_scratch(static_cast<size_t>(panels * panel_bytes())));
    }

    // Outputs are shared out only as far as that makes tasks of some size.
    int64_t count_shares(int64_t tokens, int64_t panels) const {
        const int64_t vectors = (std::min(tokens, panel_tokens_) + kernel_.vector_tokens - 1) / kernel_.vector_tokens;
        const int64_t most = packed_.work_before(packed_.strips()) * vectors / least_work;
        return std::max<int64_t>(1, std::min({most, packed_.strips(), (enough_tasks + panels - 1) / panels}));
    }

    // Where a share of the strips begins: all have about the same number of weights.
    int64_t first_strip(int64_t share, int64_t shares) const {
        if (share == shares) return packed_.strips();
        const int64_t before = packed_.work_before(packed_.strips()) * share / shares;
        int64_t strip = 0;
        while (packed_.work_before(strip) < before) ++strip;
        return strip;
    }

    void quantise(const float* x, int64_t tokens, int64_t panel, char* out) const {
        const int64_t first = panel * panel_tokens_;
        kernel_.quantise(layer_, x + first * layer_.in, std::min(panel_tokens_, tokens - first), out);
    }

    void multiply(const char* in, int64_t tokens, int64_t panel, int64_t strip, int64_t end, float* y) const {
        const int64_t first = panel * panel_tokens_;
        for (; strip < end; ++strip) {
            kernel_.multiply(layer_, in, std::min(panel_tokens_, tokens - first), strip, y + first * layer_.out);
        }
    }

    Int8Kernel kernel_;
    PackedInt8 packed_;
    Int8Layer layer_;
    MadeOnce<PackedMasks<int8_t>> masked_;
    int64_t panel_tokens_;
};

using ChooseKernel = Int8Kernel (*)(const Shape&, bool shares_units);

// An entry of 4 outputs costs as much as so many of one, measured: 16 multiply-adds and 8 loads against 4 and 5.
constexpr double shared_cost = 2.8;

// Outputs may share the columns that any of them has: the more of these they have in common, the more it saves.
Int8Kernel choose_kernel(const SparseWeight<int8_t>& weight, ChooseKernel choose) {
    const Int8Kernel shared = choose(weight.shape, true), single = choose(weight.shape, false);
    if (weight.shape.block_out > 1) return shared;
    const auto count = [&](const Int8Kernel& kernel) {
        return static_cast<double>(count_int8_entries(weight, kernel.unit, kernel.group_rows));
    };
    return shared_cost * count(shared) < count(single) ? shared : single;
}

ChooseKernel find_kernels(Isa isa) {
#if defined(__x86_64__)
    if (isa == Isa::avx512_vbmi2) return int8_vbmi2;
    if (isa == Isa::avx512_vnni) return int8_vnni;
    if (isa == Isa::avx512) return int8_avx512;
    if (isa == Isa::avx2) return int8_avx2;
#elif defined(__aarch64__)
    if (isa == Isa::neon_dotprod) return int8_dotprod;
    if (isa == Isa::neon) return int8_neon;
#endif
    return nullptr;
}

}  // namespace

std::unique_ptr<Linear> make_int8_linear(const SparseWeight<int8_t>& weight, const float* scales, const float* bias,
                                         Activation activation, Isa isa) {
    const ChooseKernel choose = find_kernels(isa);
    if (choose == nullptr || weight.shape.in > widest_split) {
        return make_int8_scalar(weight, scales, bias, activation);
    }
    return std::make_unique<Int8Vector>(weight, scales, bias, activation, choose_kernel(weight, choose));
}

}  // namespace stepdown
