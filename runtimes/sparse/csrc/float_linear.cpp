// The FP32 layer: packs a weight for the instruction set, and shares tokens and rows out among threads.
#include <algorithm>
#include <atomic>
#include <new>
#include <thread>

#include "float_kernel.h"
#include "float_scalar.h"
#include "linear.h"
#include "made_once.h"
#include "masked_pack.h"
#include "scratch.h"

namespace stepdown {
namespace {

// Steps (four rows each) times vectors below which a task is not worth handing to another thread: about 3 us, where
// handing over costs 1 to 2. Layers of 1 to 16 tokens on two threads are up to 1.5 times as fast as with 8192.
constexpr int64_t smallest_task = 1024;
// The same for one token in rows with masks, in weights, zeros included: about 5 us.
constexpr int64_t smallest_masked_task = int64_t{1} << 17;
// Sums of a task, which stay in the second cache while the tiles go by: 512 KiB. With twice as many a layer of 16,384
// outputs took 9 % longer (512 tokens), with half as many layers of 1,536 and 3,072 took 2 %.
constexpr int64_t most_sums = int64_t{1} << 17;
// Values of a hundred from which masks are read for a single token: where a layer is in the caches, gathering 6 took
// 0.8 times as long, and 10 took 1.2 times (288 x 1152; where it is not, masks win from 3 on).
constexpr int64_t masked_percent = 8;

class FloatLinear : public Linear {
public:
    FloatLinear(const SparseWeight<float>& weight, const float* bias, Activation activation, const FloatKernel& kernel)
        : packed_(weight, bias, kernel.depth),
          kernel_(kernel),
          activation_(activation),
          threads_(std::max<int64_t>(1, std::thread::hardware_concurrency())),
          masks_(kernel.run_masked != nullptr &&
                 weight.entries * 100 >= weight.shape.out * weight.shape.in * masked_percent) {}

    void run(const float* x, float* y, int64_t tokens, const Parallel& parallel) const override {
        if (tokens == 0) return;
        Run run{this, x, y, tokens, 0, 0, {}, {false}};
        if (masks_ && tokens == 1) run.masked = masked_.get([this] { return pack_masks(packed_.view()); }).view();
        const int64_t panels = (tokens + kernel_.panel_tokens - 1) / kernel_.panel_tokens;
        run.panel_tokens = round_up((tokens + panels - 1) / panels, kernel_.lanes);
        run.parts = parts(panels, run.panel_tokens, run.masked.blocks > 0);
        parallel.run(panels * run.parts, run_task, &run);
        if (run.out_of_memory) throw std::bad_alloc();
    }

private:
    struct Run {
        const FloatLinear* linear;
        const float* x;
        float* y;
        int64_t tokens, panel_tokens, parts;
        MaskedRows<float> masked;  // without blocks where it is not used
        std::atomic<bool> out_of_memory;
    };

    // How many tasks share the rows of a panel, each packing the panel for itself: one is enough where there are panels
    // for all threads, unless its sums leave the cache.
    int64_t parts(int64_t panels, int64_t tokens, bool masked) const {
        const FloatWeight& weight = packed_.view();
        const int64_t worth = masked ? weight.shape.out * weight.shape.in / smallest_masked_task
                                     : weight.steps * (tokens / kernel_.lanes) / smallest_task;
        const int64_t wanted = (threads_ + panels - 1) / panels;
        const int64_t needed = (weight.shape.out * tokens + most_sums - 1) / most_sums;
        return std::min(std::max(std::min(wanted, worth), needed), weight.chunk_count);
    }

    static void run_task(void* data, int64_t index) {
        Run& run = *static_cast<Run*>(data);
        const FloatLinear& linear = *run.linear;
        const FloatWeight& weight = linear.packed_.view();
        const int64_t panel = index / run.parts, part = index % run.parts;
        const int64_t token = panel * run.panel_tokens;
        const int64_t tokens = std::min(run.panel_tokens, run.tokens - token);
        if (tokens <= 0) return;
        try {
            FloatJob job{&weight,
                         &run.masked,
                         linear.activation_,
                         run.x + token * weight.shape.in,
                         run.y + token * weight.shape.out,
                         tokens,
                         part * weight.chunk_count / run.parts,
                         (part + 1) * weight.chunk_count / run.parts,
                         nullptr};
            const int64_t size = linear.kernel_.scratch_size(job);
            job.scratch = static_cast<float*>(thread_scratch(static_cast<size_t>(size) * sizeof(float)));
            const auto multiply = run.masked.blocks > 0 ? linear.kernel_.run_masked : linear.kernel_.run;
            multiply(job);
        } catch (const std::bad_alloc&) {
            run.out_of_memory = true;
        }
    }

    PackedFloat packed_;
    FloatKernel kernel_;
    Activation activation_;
    int64_t threads_;
    bool masks_;
    MadeOnce<PackedMasks<float>> masked_;
};

}  // namespace

std::unique_ptr<Linear> make_float_linear(const SparseWeight<float>& weight, const float* bias, Activation activation,
                                          Isa isa) {
#if defined(__x86_64__)
    const FloatPattern pattern = find_float_pattern(weight.shape);
    if (has_avx512(isa)) {
        return std::make_unique<FloatLinear>(weight, bias, activation, float_avx512(pattern));
    }
    if (isa == Isa::avx2) return std::make_unique<FloatLinear>(weight, bias, activation, float_avx2(pattern));
#elif defined(__aarch64__)
    if (isa == Isa::neon || isa == Isa::neon_dotprod) {
        return std::make_unique<FloatLinear>(weight, bias, activation, float_neon(find_float_pattern(weight.shape)));
    }
#endif
    static_cast<void>(isa);
    return make_float_scalar(weight, bias, activation);
}

}  // namespace stepdown
