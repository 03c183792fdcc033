// Shares texts, heads and, where those are few, queries out among threads.
#include "attention.h"

#include <algorithm>
#include <thread>

#include "scratch.h"

namespace stepdown {
namespace {

// Multiply-adds that take a thread some 3 us: less is not worth handing to another one.
constexpr int64_t smallest_task = int64_t{1} << 18;

AttentionKernel find_attention(Isa isa) {
#if defined(__x86_64__)
    if (has_avx512(isa)) return attention_avx512();
    if (isa == Isa::avx2) return attention_avx2();
#elif defined(__aarch64__)
    if (isa == Isa::neon || isa == Isa::neon_dotprod) return attention_neon();
#endif
    static_cast<void>(isa);
    return attention_scalar();
}

int64_t divide_up(int64_t x, int64_t by) { return (x + by - 1) / by; }

}  // namespace

Attention::Attention(int64_t heads, int64_t size, float scale, Isa isa)
    : heads_(heads),
      size_(size),
      scale_(scale),
      threads_(std::max<int64_t>(1, std::thread::hardware_concurrency())),
      kernel_(find_attention(isa)) {}

void Attention::run(const AttentionTexts& texts, const Parallel& parallel) const {
    const int64_t heads = texts.batch * heads_, work = 2 * texts.queries * texts.keys * size_;
    // Each part of the queries packs the keys and values of its head for itself: only as many as threads need.
    const int64_t parts = std::clamp<int64_t>(std::min(2 * threads_ / heads, work / smallest_task), 1, texts.queries);
    const int64_t pieces = heads * parts, together = divide_up(smallest_task, divide_up(work, parts));
    const int64_t stride = heads_ * size_;
    for_each(parallel, divide_up(pieces, together), [&](int64_t task) {
        const size_t needed = static_cast<size_t>(kernel_.scratch_size(texts.keys, size_)) * sizeof(float);
        float* const scratch = static_cast<float*>(thread_scratch(needed));
        const int64_t last = std::min(pieces, (task + 1) * together);
        for (int64_t piece = task * together; piece < last; ++piece) {
            const int64_t part = piece % parts, head = piece / parts % heads_, text = piece / parts / heads_;
            const int64_t first = part * texts.queries / parts, end = (part + 1) * texts.queries / parts;
            const int64_t query = (text * texts.queries + first) * stride + head * size_;
            const int64_t key = text * texts.keys * stride + head * size_;
            const uint8_t* const seen = texts.seen == nullptr ? nullptr : texts.seen + text * texts.keys;
            kernel_.run({end - first, texts.keys, size_, stride, texts.q + query, texts.k + key, texts.v + key, seen,
                         scale_, texts.y + query, scratch});
        }
    });
}

}  // namespace stepdown
