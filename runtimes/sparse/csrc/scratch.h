// Memory for the sums and panels of a task: the thread's own, and kept for its next task.
#pragma once

#include <cstddef>

namespace stepdown {

// At least `bytes` at a multiple of 64 bytes, until the same thread asks again. Throws std::bad_alloc.
void* thread_scratch(size_t bytes);

}  // namespace stepdown
