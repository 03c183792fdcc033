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

// Calls body(i) for each i in [0, total) on the threads of parallel.
template <class Body>
void for_each(const Parallel& parallel, int64_t total, const Body& body) {
    if (total == 1) return body(0);
    parallel.run(
        total, [](void* data, int64_t index) { (*static_cast<const Body*>(data))(index); }, const_cast<Body*>(&body));
}

}  // namespace stepdown
