#include "attention_head.h"
#include "lanes_scalar.h"

namespace stepdown {
namespace {

struct Scalar : ScalarLanes {
    using Square = Scalar;
    static constexpr int square = lanes;
    static constexpr int rows = 4;

    static void transpose(Vector (&)[lanes]) {}
};

}  // namespace

AttentionKernel attention_scalar() { return make_attention<Scalar>(); }

}  // namespace stepdown
