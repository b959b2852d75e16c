/* The primitives of vec.h on four lanes, and what all rungs of this plugin share. Its 32 registers hold six rows of
 * activations times sixteen of weights. */
#ifndef SIS_NEON_VEC_H
#define SIS_NEON_VEC_H

#include <arm_neon.h>
#define VL 4
#define MAX_ROWS 6
#define Q8_AT(B, R, M, N) ((R) * (N) + (B)) /* row by row */
static inline __attribute__((always_inline)) float32x4_t v_fma(float32x4_t a, float32x4_t b, float32x4_t c)
{
    return vfmaq_f32(c, a, b);
}
static inline __attribute__((always_inline)) float32x4_t v_max(float32x4_t a, float32x4_t b)
{
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}
static inline __attribute__((always_inline)) float32x4_t v_min(float32x4_t a, float32x4_t b)
{
    return vbslq_f32(vcltq_f32(a, b), a, b);
}
static inline __attribute__((always_inline)) float32x4_t v_abs(float32x4_t a) { return vabsq_f32(a); }
static inline __attribute__((always_inline)) float32x4_t v_load_half(const uint16_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
static inline __attribute__((always_inline)) void v_store_half(uint16_t *p, float32x4_t v)
{
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v)));
}
static inline __attribute__((always_inline)) float32x4_t v_load_bfloat(const uint16_t *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
#define V_HAS_FMA
#define V_HAS_MAX
#define V_HAS_HALF
#define V_HAS_ROW
#define FAR 0
#include "vec.h"

/* A sum is finished before any loads that follow: moved ahead, they take registers that sums need. */
#define IN_ORDER(SUM) __asm__ volatile("" : "+w"(SUM)::"memory")

INLINE void quantize_block(const float *x, float inverse, int8_t *q, int32_t sums[2])
{
    for (int h = 0; h < 2; h++, x += 16) {
        int32x4_t r[4];
        UNROLL_FOR (int i = 0; i < 4; i++) r[i] = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4 * i), inverse));
        int16x8_t low = vqmovn_high_s32(vqmovn_s32(r[0]), r[1]), high = vqmovn_high_s32(vqmovn_s32(r[2]), r[3]);
        int8x16_t bytes = vmaxq_s8(vqmovn_high_s16(vqmovn_s16(low), high), vdupq_n_s8(-127));
        vst1q_s8(q + 16 * h, bytes);
        sums[h] = vaddlvq_s8(bytes);
    }
}

/* Sixteen numbers in half precision. */
INLINE void halves(const uint8_t *p, float32x4_t *s)
{
    UNROLL_FOR (int g = 0; g < 4; g += 2) {
        const float16x8_t v = vreinterpretq_f16_u8(vld1q_u8(p + 8 * g));
        s[g] = vcvt_f32_f16(vget_low_f16(v));
        s[g + 1] = vcvt_high_f32_f16(v);
    }
}

/* For float tiles: sixteen weights of a kind; M numbers, each in all lanes. What is in one vector stays there, since
 * multiplications take a lane of it. */
INLINE void load_row(int kind, const uint8_t *w, float32x4_t *row)
{
    if (kind == ROWS_F16) halves(w, row);
    else
        UNROLL_FOR (int j = 0; j < 4; j++)
            row[j] = kind == ROWS_F32 ? v_load(w + 16 * j) : v_load_bfloat((const uint16_t *)(const void *)w + 4 * j);
}
INLINE void load_numbers(const int M, const float *x, float32x4_t *numbers)
{
    int m = 0;
    UNROLL_FOR (; m + 2 <= M; m += 2) {
        const float32x2_t pair = vld1_f32(x + m);
        numbers[m] = vdupq_lane_f32(pair, 0);
        numbers[m + 1] = vdupq_lane_f32(pair, 1);
    }
    if (m < M) numbers[m] = vdupq_n_f32(x[m]);
}

/* One to four vectors that lie together. */
INLINE void load_vectors(const int n, const uint8_t *from, int32x4_t *v)
{
    const int32_t *p = (const int32_t *)(const void *)from;
    if (n == 4) {
        const int32x4x4_t all = vld1q_s32_x4(p);
        UNROLL_FOR (int i = 0; i < 4; i++) v[i] = all.val[i];
    } else if (n == 3) {
        const int32x4x3_t all = vld1q_s32_x3(p);
        UNROLL_FOR (int i = 0; i < 3; i++) v[i] = all.val[i];
    } else
        UNROLL_FOR (int i = 0; i < n; i++) v[i] = vld1q_s32(p + 4 * i);
}

/* Sixteen unsigned bytes, each in the lane of its row. */
INLINE void bytes_u(uint8x16_t v, int32x4_t *s)
{
    static const uint8_t order[64] = {
        0,   255, 255, 255, 1,   255, 255, 255, 2,   255, 255, 255, 3,   255, 255, 255, 4,   255, 255, 255, 5,   255,
        255, 255, 6,   255, 255, 255, 7,   255, 255, 255, 8,   255, 255, 255, 9,   255, 255, 255, 10,  255, 255, 255,
        11,  255, 255, 255, 12,  255, 255, 255, 13,  255, 255, 255, 14,  255, 255, 255, 15,  255, 255, 255,
    };
    UNROLL_FOR (int g = 0; g < 4; g++) s[g] = vreinterpretq_s32_u8(vqtbl1q_u8(v, vld1q_u8(order + 16 * g)));
}

INLINE void bytes_s(const uint8_t *p, int32x4_t *s)
{
    const int8x16_t v = vreinterpretq_s8_u8(vld1q_u8(p));
    const int16x8_t low = vmovl_s8(vget_low_s8(v)), high = vmovl_high_s8(v);
    s[0] = vmovl_s16(vget_low_s16(low));
    s[1] = vmovl_high_s16(low);
    s[2] = vmovl_s16(vget_low_s16(high));
    s[3] = vmovl_high_s16(high);
}

INLINE void start(int32x4_t *dot, int32_t value)
{
    UNROLL_FOR (int g = 0; g < 4; g++) dot[g] = vdupq_n_s32(value);
}

#endif
