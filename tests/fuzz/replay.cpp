// Runs the fuzzer's target once on each file named, then on so many strings of random bytes: what a fuzzer found stays
// found, with any compiler and on any CPU.
//
//   replay_weights COUNT FILE...
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

bool replay(const char* name) {
    std::ifstream file(name, std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    if (!file) return false;
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    return true;
}

void run_random(int count) {
    std::mt19937 random(20261122);
    for (int at = 0; at < count; ++at) {
        std::vector<uint8_t> bytes(random() % 2048);
        for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
        LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
    }
}

}  // namespace

int main(int count, char** names) {
    for (int at = 2; at < count; ++at) {
        if (replay(names[at])) continue;
        std::fprintf(stderr, "cannot read %s\n", names[at]);
        return 2;
    }
    const int random = count > 1 ? std::atoi(names[1]) : 0;
    run_random(random);
    std::printf("%d files, %d random\n", count > 2 ? count - 2 : 0, random);
    return 0;
}
