/* NEON with sdot (FEAT_DotProd): four products of bytes added to each lane, those of one row of weights. */
#include "neon_vec.h"
#include "over_vec.inc"
#define ROW_TILES
#include "codes.inc"
#include "sdot.inc"

#define NW 2
#define NX(M) (M)
#define X_WORD 4
#define X_NUMBERS(M) 32

INLINE void put_step(uint8_t *out, int g, int8x16_t low, int8x16_t high)
{
    vst1q_s8((int8_t *)out + g * 16, low);
    vst1q_s8((int8_t *)out + 32 + g * 16, high);
}

INLINE void put_numbers(uint8_t *out, const float32x4_t *v)
{
    v_store(out, v[0]);
    v_store(out + 16, v[1]);
}

INLINE void numbers_at(const uint8_t *p, float32x4_t *v)
{
    const float32x4x2_t all = vld1q_f32_x2((const float *)(const void *)p);
    v[0] = all.val[0], v[1] = all.val[1];
}

#define NUMBER_AT(ROW) (4 * (ROW))
INLINE void put_number(uint8_t *p, uint32_t row, float number) { memcpy(p + NUMBER_AT(row), &number, 4); }

INLINE void rows_at(const uint8_t *p, float32x4_t *v) { numbers_at(p, v); }
INLINE float32x4_t of_row(const float32x4_t *v, const uint8_t *p, int x)
{
    (void)p;
    return vdupq_n_f32(v[x / 4][x % 4]);
}

/* Two quads of M rows: word q * M + m is quad q of row m. */
INLINE void add_step(const int M, const uint8_t *w, const uint8_t *x, int32x4_t *dot)
{
    const int8x16x4_t v = vld1q_s8_x4((const int8_t *)w);
    int32x4_t words[3];
    if (M == 6) {
        const int32x4x3_t all = vld1q_s32_x3((const int32_t *)(const void *)x);
        words[0] = all.val[0], words[1] = all.val[1], words[2] = all.val[2];
    } else
        UNROLL_FOR (int i = 0; i < M / 2; i++) words[i] = vld1q_s32((const int32_t *)(const void *)x + 4 * i);
    UNROLL_FOR (int q = 0; q < 2; q++)
        UNROLL_FOR (int m = 0; m < M; m++) {
            const int at = q * M + m;
            const int8x16_t y = vreinterpretq_s8_s32(vdupq_n_s32(words[at / 4][at % 4]));
            UNROLL_FOR (int j = 0; j < 2; j++) dot[m * 2 + j] = vdotq_s32(dot[m * 2 + j], v.val[q * 2 + j], y);
        }
}

INLINE void store_sums(const int M, const float32x4_t *sum, float *y)
{
    UNROLL_FOR (int i = 0; i < 2 * M; i++) v_store(y + i / 2 * TILE + i % 2 * 4, sum[i]);
}

#define MANY sis_many_dotprod
#include "many.inc"
#define TABLE sis_neon_dotprod
#define ISA "neon_dotprod"
#include "table.inc"
