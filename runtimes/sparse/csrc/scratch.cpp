#include "scratch.h"

#include <memory>
#include <new>

namespace stepdown {
namespace {

constexpr std::align_val_t alignment{64};

struct Free {
    void operator()(void* memory) const { ::operator delete(memory, alignment); }
};

struct Scratch {
    std::unique_ptr<void, Free> memory;
    size_t size = 0;
};

}  // namespace

void* thread_scratch(size_t bytes) {
    static thread_local Scratch scratch;
    if (bytes > scratch.size) {
        scratch.size = 0;
        scratch.memory.reset();
        scratch.memory.reset(::operator new(bytes, alignment));
        scratch.size = bytes;
    }
    return scratch.memory.get();
}

}  // namespace stepdown
