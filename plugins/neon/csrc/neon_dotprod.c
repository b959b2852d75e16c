/* NEON with sdot (FEAT_DotProd): four products of bytes added to each lane, those of one row of weights. */
#include "neon_vec.h"
#include "over_vec.inc"
#define ROW_TILES
#include "codes.inc"
#include "sdot.inc"

#define NW 1
#define X_WORD 4
#define X_COPIES 1

INLINE void put_columns(uint8_t **out, const int8x16_t *quads)
{
    const int8x16x4_t all = {{quads[0], quads[1], quads[2], quads[3]}};
    vst1q_s8_x4((int8_t *)*out, all);
    *out += 64;
}

INLINE void numbers_at(const uint8_t *p, float32x4_t *v) { v[0] = v_load(p); }

INLINE void rows_at(const int M, const uint8_t *p, float32x4_t *v)
{
    if (M == 8) {
        const float32x4x2_t all = vld1q_f32_x2((const float *)(const void *)p);
        v[0] = all.val[0], v[1] = all.val[1];
    } else v[0] = v_load(p);
    if (M == 6) v[1] = vcombine_f32(vld1_f32((const float *)(const void *)(p + 16)), vdup_n_f32(0));
}
INLINE float32x4_t of_row(const float32x4_t *v, int x) { return vdupq_n_f32(v[x / 4][x % 4]); }

INLINE void start_sums(const int M, const uint8_t **p, int32x4_t *dot)
{
    UNROLL_FOR (int i = 0; i < M; i += 4) {
        const int32_t *numbers = (const int32_t *)(const void *)*p;
        if (M - i >= 4) {
            const int32x4x4_t all = vld4q_dup_s32(numbers);
            UNROLL_FOR (int j = 0; j < 4; j++) dot[i + j] = all.val[j];
        } else {
            const int32x4x2_t all = vld2q_dup_s32(numbers);
            dot[i] = all.val[0], dot[i + 1] = all.val[1];
        }
        *p += M - i >= 4 ? 16 : 8;
        __asm__("" : "+r"(*p)); /* so that a load moves it on */
    }
}

/* Two quads of M rows: word q * M + m is quad q of row m. */
INLINE void add_columns(const int M, int8x16_t low, int8x16_t high, const int32x4_t *words, int32x4_t *dot)
{
    UNROLL_FOR (int i = 0; i < 2 * M; i++) {
        const int8x16_t y = vreinterpretq_s8_s32(vdupq_n_s32(words[i / 4][i % 4]));
        dot[i % M] = vdotq_s32(dot[i % M], i < M ? low : high, y);
    }
}

INLINE void store_sums(const int M, const float32x4_t *sum, float *y)
{
    UNROLL_FOR (int i = 0; i < M; i++) v_store(y + i * TILE, sum[i]);
}

#define MANY sis_many_dotprod
#include "many.inc"
#define TABLE sis_neon_dotprod
#define ISA "neon_dotprod"
#include "table.inc"
