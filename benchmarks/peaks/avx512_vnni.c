/* vpdpbusd on zmm registers: twelve chains, enough to hide its latency. */
#include "peak.h"
#include "x86.h"
#include <immintrin.h>

static const char *absent(void)
{
    struct features found = find_features();
    int has = (found.b & bit_AVX512F) && (found.c & bit_AVX512VNNI) && saves(found, SAVES_ZMM);
    return has ? 0 : "this processor has no AVX512-VNNI";
}

#define DOT(c, a, b) __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(c) : "v"(a), "v"(b))

__attribute__((target("avx512f"))) static void spin(long rounds, const void *operands)
{
    const __m512i *x = operands;
    __m512i a0 = _mm512_loadu_si512(x), a1 = _mm512_loadu_si512(x + 1), a2 = _mm512_loadu_si512(x + 2),
            b0 = _mm512_loadu_si512(x + 3), b1 = _mm512_loadu_si512(x + 4), b2 = _mm512_loadu_si512(x + 5);
    __m512i c0 = a0, c1 = a1, c2 = a2, c3 = b0, c4 = b1, c5 = b2, c6 = a0, c7 = a1, c8 = a2, c9 = b0, c10 = b1,
            c11 = b2;
    for (long i = 0; i < rounds; i++) {
        TWELVE(a0, b0);
        TWELVE(a1, b1);
        TWELVE(a2, b2);
    }
}

PEAK_MAIN(3 * 12 * 64, 0)
