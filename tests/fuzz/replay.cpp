// Runs the fuzzer's target once on each file named: what a fuzzer found stays found, with any compiler.
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int main(int count, char** names) {
    for (int at = 1; at < count; ++at) {
        std::ifstream file(names[at], std::ios::binary);
        if (!file) {
            std::fprintf(stderr, "cannot read %s\n", names[at]);
            return 2;
        }
        const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
        LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    }
    std::printf("%d files\n", count - 1);
    return 0;
}
