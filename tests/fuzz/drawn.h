// What the fuzzers share: numbers drawn from bytes, every instruction set of this CPU, and when answers are the same.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "cpu.h"
#include "linear.h"
#include "parallel.h"

namespace stepdown {
namespace {

class Bytes {
public:
    Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}

    bool empty() const { return size_ == 0; }
    // Zeros after the end.
    uint8_t next() {
        if (size_ == 0) return 0;
        --size_;
        return *data_++;
    }
    int64_t below(int64_t limit) { return limit <= 1 ? 0 : (next() | next() << 8) % limit; }
    template <class T>
    T raw() {
        uint8_t bytes[sizeof(T)];
        for (uint8_t& byte : bytes) byte = next();
        T value;
        std::memcpy(&value, bytes, sizeof(T));
        return value;
    }

private:
    const uint8_t* data_;
    size_t size_;
};

class Serial : public Parallel {
public:
    void run(int64_t total, void (*body)(void* data, int64_t index), void* data) const override {
        for (int64_t index = total; index > 0; --index) body(data, index - 1);
    }
};

// A vector that keeps no room beyond its size.
template <class T>
std::vector<T> exactly(const std::vector<T>& numbers) {
    std::vector<T> copy(numbers.begin(), numbers.end());
    copy.shrink_to_fit();
    return copy;
}

// Also where NaN answers NaN.
bool is_same(const std::vector<float>& one, const std::vector<float>& other) {
    for (size_t at = 0; at < one.size(); ++at) {
        if (one[at] != other[at] && !(std::isnan(one[at]) && std::isnan(other[at]))) return false;
    }
    return true;
}

std::vector<Isa> list_usable() {
    std::vector<Isa> usable;
    for (const char* name : {"scalar", "avx2", "avx512", "avx512_vnni", "avx512_vbmi2", "neon", "neon_dotprod"}) {
        setenv("STEPDOWN_SPARSE_ISA", name, 1);
        try {
            usable.push_back(find_isa());
        } catch (const std::invalid_argument&) {
        }
    }
    return usable;
}

}  // namespace
}  // namespace stepdown
