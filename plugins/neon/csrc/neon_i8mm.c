/* NEON with fmlal and smmla (FEAT_I8MM): two rows of weights times two rows of activations, eight columns at once. A single row
 * would waste half of each product, so it is multiplied by sdot. */
#define V_HAS_HALVES
#include "neon_vec.h"
#include "over_vec.inc"
#include "halves.inc"
#include "codes.inc"
#include "sdot.inc"

#define NW 2
#define X_WORD 8
#define X_COPIES 2 /* two rows of activations with two of weights: x0 w0, x0 w1, x1 w0, x1 w1 */

/* Two rows of eight columns in a vector. */
INLINE void put_columns(uint8_t **out, const int8x16_t *quads)
{
    UNROLL_FOR (int i = 0; i < 4; i += 2, *out += 32) {
        const int32x4x2_t two = {{vreinterpretq_s32_s8(quads[i]), vreinterpretq_s32_s8(quads[i + 1])}};
        vst2q_s32((int32_t *)(void *)*out, two);
    }
}

INLINE void numbers_at(const uint8_t *p, float32x4_t *v)
{
    const float64x2x2_t two = vld2q_dup_f64((const double *)(const void *)p);
    v[0] = vreinterpretq_f32_f64(two.val[0]), v[1] = vreinterpretq_f32_f64(two.val[1]);
}

INLINE void rows_at(const int M, const uint8_t *p, float32x4_t *v)
{
    int32x4_t all[4];
    load_vectors(M / 2, p, all);
    UNROLL_FOR (int i = 0; i < M / 2; i++) v[i] = vreinterpretq_f32_s32(all[i]);
}
INLINE float32x4_t of_row(const float32x4_t *v, int x) { return v[x]; }

INLINE void start_sums(const int M, const uint8_t **p, int32x4_t *dot)
{
    int32x4_t all[2][4];
    load_vectors(M / 2, *p, all[0]);
    __asm__("" : "+r"(*p)); /* else each would be copied */
    load_vectors(M / 2, *p, all[1]);
    *p += M * 8;
    UNROLL_FOR (int i = 0; i < M; i++) dot[i] = all[i % 2][i / 2];
}

INLINE void add_columns(const int M, int8x16_t low, int8x16_t high, const int32x4_t *words, int32x4_t *dot)
{
    UNROLL_FOR (int i = 0; i < M; i++)
        dot[i] = vmmlaq_s32(dot[i], vreinterpretq_s8_s32(words[i / 2]), i % 2 ? high : low);
}

INLINE void store_sums(const int M, const float32x4_t *sum, float *y)
{
    UNROLL_FOR (int i = 0; i < M; i += 2) {
        const float64x2_t a = vreinterpretq_f64_f32(sum[i]), b = vreinterpretq_f64_f32(sum[i + 1]);
        v_store(y + i * TILE, vreinterpretq_f32_f64(vzip1q_f64(a, b)));
        v_store(y + (i + 1) * TILE, vreinterpretq_f32_f64(vzip2q_f64(a, b)));
    }
}

#define MANY sis_many_i8mm
#include "many.inc"
#define TABLE sis_neon_i8mm
#define ISA "neon_i8mm"
#include "table.inc"
