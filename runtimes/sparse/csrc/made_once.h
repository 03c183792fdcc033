// What is made when it is first asked for, and kept. Not std::call_once, which waits for ever on some systems once what
// it calls has thrown (gcc.gnu.org/PR66146).
#pragma once

#include <atomic>
#include <memory>

namespace stepdown {

template <class T>
class MadeOnce {
public:
    MadeOnce() = default;
    MadeOnce(const MadeOnce&) = delete;
    MadeOnce& operator=(const MadeOnce&) = delete;
    ~MadeOnce() { delete made_.load(); }

    // Threads that ask at once may each make one; the first stays. Throws what make() throws.
    template <class Make>
    const T& get(const Make& make) const {
        const T* found = made_.load(std::memory_order_acquire);
        if (found != nullptr) return *found;
        std::unique_ptr<const T> mine = std::make_unique<const T>(make());
        if (made_.compare_exchange_strong(found, mine.get(), std::memory_order_acq_rel)) return *mine.release();
        return *found;
    }

private:
    mutable std::atomic<const T*> made_{nullptr};
};

}  // namespace stepdown
