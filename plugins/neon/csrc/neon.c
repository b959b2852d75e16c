/* Plain NEON. smull and smlal add products of bytes in sixteen bits, each lane those of one column in four: a block of
 * nibbles fits whole (8 * 15 * 127 = 15240), half a block of six bits (4 * 63 * 127 = 32004), two columns of eight bits
 * (2 * 128 * 127 = 32512), since activations are at most 127. */
#include "neon_vec.h"
#include "over_vec.inc"

/* Quad number `quad` of a block, in all four places of a vector. */
INLINE int8x16_t repeat(const struct q8_block *x, int quad)
{
    int32_t word;
    memcpy(&word, x->q + 4 * quad, 4);
    int8x16_t x4 = vreinterpretq_s8_s32(vdupq_n_s32(word));
    __asm__("" : "+w"(x4)); /* else clang takes the halves for equal, and moves that of the weights down */
    return x4;
}

/* Products of four rows of four columns: rows 0 and 1 in d[0], rows 2 and 3 in d[1]. */
INLINE void multiply_bytes(int16x8_t *d, int8x16_t w, int8x16_t x)
{
    d[0] = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    d[1] = vmull_high_s8(w, x);
}

INLINE void add_products(int16x8_t *d, int8x16_t w, int8x16_t x)
{
    d[0] = vmlal_s8(d[0], vget_low_s8(w), vget_low_s8(x));
    d[1] = vmlal_high_s8(d[1], w, x);
}

INLINE void add_nibbles(const uint8_t *w, const struct q8_block *x, int32x4_t *dot)
{
    UNROLL_FOR (int g = 0; g < 4; g++) {
        int16x8_t d[2];
        UNROLL_FOR (int i = 0; i < 4; i++) {
            const uint8x16_t v = vld1q_u8(w + i * 64 + g * 16);
            const int8x16_t low = vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(15)));
            if (i) add_products(d, low, repeat(x, 2 * i));
            else multiply_bytes(d, low, repeat(x, 0));
            add_products(d, vreinterpretq_s8_u8(vshrq_n_u8(v, 4)), repeat(x, 2 * i + 1));
        }
        dot[g] = vpadalq_s16(dot[g], vpaddq_s16(d[0], d[1]));
    }
}

INLINE void block_q4_0(const uint8_t *w, const uint8_t *scales, const struct q8_block *x, float32x4_t *acc)
{
    int32x4_t dot[4];
    start(dot, x->minus_8);
    add_nibbles(w, x, dot);
    add_scaled(acc, dot, scales, x);
}

INLINE void block_q4_k(const uint8_t *w, const uint8_t *scales, const struct q8_block *x, float32x4_t *sum)
{
    int32x4_t dot[4], scale[4];
    start(dot, 0);
    add_nibbles(w, x, dot);
    bytes_s(scales, scale);
    add_whole(sum, dot, scale, x);
}

INLINE void block_q8_0(const uint8_t *w, const uint8_t *scales, const struct q8_block *x, float32x4_t *acc)
{
    int32x4_t dot[4];
    UNROLL_FOR (int g = 0; g < 4; g++) {
        int32x4_t a = vdupq_n_s32(0), b = a;
        UNROLL_FOR (int i = 0; i < 8; i += 2) {
            int16x8_t d[2];
            multiply_bytes(d, vreinterpretq_s8_u8(vld1q_u8(w + i * 64 + g * 16)), repeat(x, i));
            add_products(d, vreinterpretq_s8_u8(vld1q_u8(w + i * 64 + 64 + g * 16)), repeat(x, i + 1));
            a = vpadalq_s16(a, d[0]);
            b = vpadalq_s16(b, d[1]);
        }
        dot[g] = vpaddq_s32(a, b);
    }
    add_scaled(acc, dot, scales, x);
}

/* Both halves of a block of 32, each with a scale of its own. */
INLINE void block_q6_k(const uint8_t *w, const uint8_t *scales, const struct q8_block *x, float32x4_t *sum)
{
    UNROLL_FOR (int h = 0; h < 2; h++) {
        int32x4_t dot[4], scale[4];
        start(dot, x->minus_32[h]);
        UNROLL_FOR (int g = 0; g < 4; g++) {
            int16x8_t d[2];
            int8x16_t low, high;
            six_bits(w, h, 0, g, &low, &high);
            multiply_bytes(d, low, repeat(x, 4 * h));
            add_products(d, high, repeat(x, 4 * h + 1));
            six_bits(w, h, 1, g, &low, &high);
            add_products(d, low, repeat(x, 4 * h + 2));
            add_products(d, high, repeat(x, 4 * h + 3));
            dot[g] += vpaddq_s32(vpaddlq_s16(d[0]), vpaddlq_s16(d[1]));
        }
        bytes_s(scales + 16 * h, scale);
        add_whole(sum, dot, scale, x);
    }
}

#include "row_tiles.inc"

INLINE void add_codes(const struct sis_kind kind, int last, int i, vi *sum, vi *some, vc w, int32_t x)
{
    (void)kind, (void)last, (void)i, (void)some;
    int8x16_t x4 = vreinterpretq_s8_s32(vdupq_n_s32(x));
    int16x8_t d[2];
    __asm__("" : "+w"(x4)); /* see `repeat` */
    multiply_bytes(d, (int8x16_t)w, x4);
    *sum = (vi)vpadalq_s16((int32x4_t)*sum, vpaddq_s16(d[0], d[1]));
}

#define TABLE sis_neon
#define ISA "neon"
#include "table.inc"
