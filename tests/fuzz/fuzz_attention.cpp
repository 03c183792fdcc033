// Fuzzes attention on every instruction set of this CPU: whatever the shapes, the mask and the numbers, nothing is read
// or written where it must not be, and all answer the same bits.
//
// In: bytes, read as sizes, a mask whose bytes need not be 0 or 1, and small numbers with a few of any bits among them.
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "attention.h"
#include "drawn.h"

namespace {

using namespace stepdown;

std::vector<float> draw_numbers(int64_t size, Bytes& bytes) {
    std::vector<float> numbers(static_cast<size_t>(size));
    for (float& number : numbers) number = static_cast<float>(static_cast<int8_t>(bytes.next())) / 16;
    if (bytes.next() % 4 == 0) numbers[static_cast<size_t>(bytes.below(size))] = bytes.raw<float>();
    return numbers;
}

std::vector<uint8_t> draw_mask(int64_t size, Bytes& bytes) {
    std::vector<uint8_t> seen(static_cast<size_t>(size));
    const bool all = bytes.next() % 4 == 0;
    for (uint8_t& one : seen) one = all ? 1 : bytes.next();
    return seen;
}

void fuzz(Bytes& bytes) {
    AttentionTexts texts{};
    texts.batch = 1 + bytes.below(3), texts.queries = 1 + bytes.below(80), texts.keys = 1 + bytes.below(80);
    const int64_t heads = 1 + bytes.below(4), size = 1 + bytes.below(70), features = heads * size;
    const float scale = static_cast<float>(1 + bytes.below(64)) / 64;
    const std::vector<uint8_t> seen = draw_mask(texts.batch * texts.keys, bytes);
    const std::vector<float> q = draw_numbers(texts.batch * texts.queries * features, bytes);
    const std::vector<float> k = draw_numbers(texts.batch * texts.keys * features, bytes);
    const std::vector<float> v = draw_numbers(texts.batch * texts.keys * features, bytes);
    texts.seen = bytes.next() % 4 == 0 ? nullptr : seen.data();
    texts.q = q.data(), texts.k = k.data(), texts.v = v.data();
    static const std::vector<Isa> usable = list_usable();
    std::vector<float> first;
    for (const Isa isa : usable) {
        std::vector<float> y(q.size());
        texts.y = y.data();
        Attention(heads, size, scale, isa).run(texts, Serial());
        if (isa == usable.front()) first = y;
        if (!is_same(first, y)) std::abort();
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    Bytes bytes(data, size);
    fuzz(bytes);
    return 0;
}
