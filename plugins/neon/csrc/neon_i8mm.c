/* NEON with fmlal and smmla (FEAT_I8MM): two rows of weights times two rows of activations, eight columns at once. A single row
 * would waste half of each product, so it is multiplied by sdot. */
#define V_HAS_HALVES
#include "neon_vec.h"
#include "over_vec.inc"
#include "halves.inc"
#include "codes.inc"
#include "sdot.inc"

#define NW 4
#define NX(M) ((M) / 2)
#define X_WORD 8
#define X_NUMBERS(M) ((M) * 8)

/* Two rows of eight columns in a vector. */
INLINE void put_step(uint8_t *out, int g, int8x16_t low, int8x16_t high)
{
    const int32x4_t a = vreinterpretq_s32_s8(low), b = vreinterpretq_s32_s8(high);
    vst1q_s8((int8_t *)out + g * 32, vreinterpretq_s8_s32(vzip1q_s32(a, b)));
    vst1q_s8((int8_t *)out + g * 32 + 16, vreinterpretq_s8_s32(vzip2q_s32(a, b)));
}

/* A number of the first row twice, then of the second: the sums of two rows of weights with two of activations. */
INLINE void put_numbers(uint8_t *out, const float32x4_t *v)
{
    UNROLL_FOR (int i = 0; i < 2; i++) {
        v_store(out + 32 * i, vzip1q_f32(v[i], v[i]));
        v_store(out + 32 * i + 16, vzip2q_f32(v[i], v[i]));
    }
}

INLINE void numbers_at(const uint8_t *p, float32x4_t *v)
{
    const float32x4x4_t all = vld1q_f32_x4((const float *)(const void *)p);
    UNROLL_FOR (int i = 0; i < 4; i++) v[i] = all.val[i];
}

/* Numbers of two rows, twice. */
#define NUMBER_AT(ROW) ((ROW) / 2 * 16 + (ROW) % 2 * 4)
INLINE void put_number(uint8_t *p, uint32_t row, float number)
{
    memcpy(p + NUMBER_AT(row), &number, 4);
    memcpy(p + NUMBER_AT(row) + 8, &number, 4);
}

/* Registers are full: each is read when it is needed. */
INLINE void rows_at(const uint8_t *p, float32x4_t *v) { (void)p, (void)v; }
INLINE float32x4_t of_row(const float32x4_t *v, const uint8_t *p, int x)
{
    (void)v;
    return v_load(p + 16 * x);
}

INLINE void add_step(const int M, const uint8_t *w, const uint8_t *x, int32x4_t *dot)
{
    const int8x16x4_t v = vld1q_s8_x4((const int8_t *)w);
    int8x16_t y[3];
    if (M == 6) {
        const int8x16x3_t all = vld1q_s8_x3((const int8_t *)x);
        y[0] = all.val[0], y[1] = all.val[1], y[2] = all.val[2];
    } else
        UNROLL_FOR (int i = 0; i < M / 2; i++) y[i] = vld1q_s8((const int8_t *)x + 16 * i);
    UNROLL_FOR (int i = 0; i < M / 2; i++)
        UNROLL_FOR (int j = 0; j < 4; j++) dot[i * 4 + j] = vmmlaq_s32(dot[i * 4 + j], v.val[j], y[i]);
}

INLINE void store_sums(const int M, const float32x4_t *sum, float *y)
{
    UNROLL_FOR (int i = 0; i < M; i++) /* two vectors of two rows: one row in the even lanes, one in the odd */
    {
        float *row = y + i / 2 * 2 * TILE + i % 2 * 4;
        v_store(row, vuzp1q_f32(sum[2 * i], sum[2 * i + 1]));
        v_store(row + TILE, vuzp2q_f32(sum[2 * i], sum[2 * i + 1]));
    }
}

#define MANY sis_many_i8mm
#include "many.inc"
#define TABLE sis_neon_i8mm
#define ISA "neon_i8mm"
#include "table.inc"
