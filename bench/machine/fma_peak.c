/* How many fused multiply-adds one core can do: independent chains in registers, nothing from memory.
   Compiled for the machine it runs on, with the widest vectors it has; returns floating-point operations done. */
#include <stdint.h>

#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__AVX2__)
#define WIDTH 8
#else
#define WIDTH 4
#endif
#define CHAINS 12 /* enough to cover a latency of 4 to 6 cycles on two ports */

typedef float vector __attribute__((vector_size(WIDTH * 4)));

volatile float sink;

int64_t multiply_add(int64_t rounds) {
    vector sums[CHAINS], factor, term;
    for (int lane = 0; lane < WIDTH; ++lane) {
        factor[lane] = 0.999f;
        term[lane] = 0.001f;
    }
    for (int chain = 0; chain < CHAINS; ++chain) sums[chain] = term * (float)chain;
    for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
        for (int chain = 0; chain < CHAINS; ++chain) sums[chain] = sums[chain] * factor + term;
    }
    float total = 0;
    for (int chain = 0; chain < CHAINS; ++chain)
        for (int lane = 0; lane < WIDTH; ++lane) total += sums[chain][lane];
    sink = total;
    return rounds * CHAINS * WIDTH * 2;
}
