#include "cpu.h"

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace stepdown {
namespace {

struct Named {
    const char* name;
    Isa isa;
};

#if defined(__x86_64__)

std::vector<Named> list_usable() {
    std::vector<Named> usable{{"scalar", Isa::scalar}};
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return usable;
    usable.push_back({"avx2", Isa::avx2});
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
        return usable;
    }
    usable.push_back({"avx512", Isa::avx512});
    if (!__builtin_cpu_supports("avx512vnni")) return usable;
    usable.push_back({"avx512_vnni", Isa::avx512_vnni});
    if (__builtin_cpu_supports("avx512vbmi2")) usable.push_back({"avx512_vbmi2", Isa::avx512_vbmi2});
    return usable;
}

#elif defined(__aarch64__)

bool has_dot_product() {
#if defined(__linux__)
    return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(__APPLE__)
    int32_t found = 0;
    size_t size = sizeof found;
    return sysctlbyname("hw.optional.arm.FEAT_DotProd", &found, &size, nullptr, 0) == 0 && found != 0;
#else
    return false;
#endif
}

std::vector<Named> list_usable() {
    std::vector<Named> usable{{"scalar", Isa::scalar}, {"neon", Isa::neon}};
    if (has_dot_product()) usable.push_back({"neon_dotprod", Isa::neon_dotprod});
    return usable;
}

#else

std::vector<Named> list_usable() { return {{"scalar", Isa::scalar}}; }

#endif

}  // namespace

Isa find_isa() {
    const std::vector<Named> usable = list_usable();
    const char* wanted = std::getenv("STEPDOWN_SPARSE_ISA");
    if (wanted == nullptr || *wanted == '\0') return usable.back().isa;
    std::string names;
    for (const Named& named : usable) {
        if (wanted == std::string(named.name)) return named.isa;
        names += names.empty() ? named.name : std::string(", ") + named.name;
    }
    throw std::invalid_argument("STEPDOWN_SPARSE_ISA is '" + std::string(wanted).substr(0, 32) + "'; this CPU has " +
                                names);
}

}  // namespace stepdown
