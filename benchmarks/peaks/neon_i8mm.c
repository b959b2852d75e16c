/* smmla on registers: twelve chains. */
#include "peak.h"
#include "arm.h"
#include <arm_neon.h>

static const char *absent(void)
{
    return HAS(AT_HWCAP2, 13, "hw.optional.arm.FEAT_I8MM") ? 0 : "this processor has no products of int8 matrices";
}

#define DOT(c, a, b) __asm__ volatile(".arch_extension i8mm\n\tsmmla %0.4s, %1.16b, %2.16b" : "+w"(c) : "w"(a), "w"(b))

static void spin(long rounds, const void *operands)
{
    const int8_t *x = operands;
    int8x16_t a0 = vld1q_s8(x), a1 = vld1q_s8(x + 16), b0 = vld1q_s8(x + 32), b1 = vld1q_s8(x + 48);
    int32x4_t c0 = vdupq_n_s32(0), c1 = c0, c2 = c0, c3 = c0, c4 = c0, c5 = c0, c6 = c0, c7 = c0, c8 = c0, c9 = c0,
              c10 = c0, c11 = c0;
    for (long i = 0; i < rounds; i++) {
        TWELVE(a0, b0);
        TWELVE(a1, b1);
        TWELVE(a0, b1);
        TWELVE(a1, b0);
    }
}

PEAK_MAIN(4 * 12 * 32, 0)
