/* vdpbf16ps on zmm registers: twelve chains. Every product is also added with the other sign, so that sums stay small. */
#include "peak.h"
#include "x86.h"
#include <immintrin.h>

static const char *absent(void)
{
    struct features found = find_features();
    int has = (found.b & bit_AVX512F) && (found.a1 & bit_AVX512BF16) && saves(found, SAVES_ZMM);
    return has ? 0 : "this processor has no AVX512-BF16";
}

#define DOT(c, a, b) __asm__ volatile("vdpbf16ps %2, %1, %0" : "+v"(c) : "v"(a), "v"(b))

__attribute__((target("avx512f"))) static void spin(long rounds, const void *operands)
{
    const __m512i *x = operands;
    const __m512i sign = _mm512_set1_epi16((short)0x8000);
    __m512i a0 = _mm512_loadu_si512(x), a1 = _mm512_loadu_si512(x + 1), b0 = _mm512_loadu_si512(x + 2),
            b1 = _mm512_loadu_si512(x + 3), m0 = _mm512_xor_si512(b0, sign), m1 = _mm512_xor_si512(b1, sign);
    __m512i c0 = _mm512_setzero_si512(), c1 = c0, c2 = c0, c3 = c0, c4 = c0, c5 = c0, c6 = c0, c7 = c0, c8 = c0,
            c9 = c0, c10 = c0, c11 = c0;
    for (long i = 0; i < rounds; i++) {
        TWELVE(a0, b0);
        TWELVE(a1, b1);
        TWELVE(a0, m0);
        TWELVE(a1, m1);
    }
}

PEAK_MAIN(4 * 12 * 32, 1)
