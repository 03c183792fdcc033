#include "norm.h"

#include <algorithm>

namespace stepdown {
namespace {

// Numbers that take a thread some 5 us: less is not worth handing to another one.
constexpr int64_t task_numbers = 16384;

struct Tasks {
    RunNorm run;
    NormJob whole;
    int64_t tokens;  // of one task
};

void run_task(void* data, int64_t index) {
    const Tasks& tasks = *static_cast<Tasks*>(data);
    NormJob job = tasks.whole;
    const int64_t first = index * tasks.tokens;
    job.tokens = std::min(tasks.tokens, job.tokens - first);
    job.residual += first * job.width;
    job.y += first * job.width;
    tasks.run(job);
}

RunNorm find_norm(Isa isa) {
#if defined(__x86_64__)
    if (has_avx512(isa)) return norm_avx512;
    if (isa == Isa::avx2) return norm_avx2;
#elif defined(__aarch64__)
    if (isa == Isa::neon || isa == Isa::neon_dotprod) return norm_neon;
#endif
    static_cast<void>(isa);
    return norm_scalar;
}

}  // namespace

Norm::Norm(int64_t width, const float* scale, const float* bias, float epsilon, Isa isa)
    : width_(width), scale_(scale, scale + width), bias_(bias, bias + width), epsilon_(epsilon), run_(find_norm(isa)) {}

void Norm::run(const float* residual, float* y, int64_t tokens, const Parallel& parallel) const {
    const NormJob whole{width_, tokens, scale_.data(), bias_.data(), epsilon_, residual, y};
    Tasks tasks{run_, whole, std::max<int64_t>(1, task_numbers / width_)};
    parallel.run((tokens + tasks.tokens - 1) / tasks.tokens, run_task, &tasks);
}

}  // namespace stepdown
