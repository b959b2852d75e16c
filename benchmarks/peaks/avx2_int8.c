/* vpmaddubsw, vpmaddwd, vpaddd on ymm registers: what a product of bytes costs before VNNI. */
#include "peak.h"
#include "x86.h"
#include <immintrin.h>

static const char *absent(void)
{
    struct features found = find_features();
    return (found.b & bit_AVX2) && saves(found, SAVES_YMM) ? 0 : "this processor has no AVX2";
}

#define DOT(c, a, b)                                                                                                   \
    __asm__ volatile("vpmaddubsw %2, %1, %%ymm15\n\tvpmaddwd %%ymm15, %3, %%ymm15\n\tvpaddd %%ymm15, %0, %0"           \
                     : "+x"(c)                                                                                         \
                     : "x"(a), "x"(b), "x"(one)                                                                        \
                     : "ymm15")

__attribute__((target("avx2"))) static void spin(long rounds, const void *operands)
{
    const __m256i *x = operands;
    const __m256i one = _mm256_set1_epi16(1);
    __m256i a0 = _mm256_loadu_si256(x), a1 = _mm256_loadu_si256(x + 1), b0 = _mm256_loadu_si256(x + 2),
            b1 = _mm256_loadu_si256(x + 3);
    __m256i c0 = a0, c1 = a1, c2 = b0, c3 = b1, c4 = a0, c5 = a1;
    for (long i = 0; i < rounds; i++) {
        SIX(a0, b0);
        SIX(a1, b1);
        SIX(a0, b1);
        SIX(a1, b0);
    }
}

PEAK_MAIN(4 * 6 * 32, 0)
