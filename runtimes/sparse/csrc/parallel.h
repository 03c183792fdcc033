// Work shared among threads that somebody else owns.
#pragma once

#include <cstdint>

namespace stepdown {

// Calls body(data, i) once for each i in [0, total), maybe several at once, and returns when all are done.
class Parallel {
public:
    virtual ~Parallel() = default;
    virtual void run(int64_t total, void (*body)(void* data, int64_t index), void* data) const = 0;
};

}  // namespace stepdown
