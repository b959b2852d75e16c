/* Plain NEON. smull and smlal add products of bytes in sixteen bits, each lane those of one column in four: a block of
 * nibbles fits whole (8 * 15 * 127 = 15240) and one of five bits (8 * 31 * 127 = 31496), half a block of six bits
 * (4 * 63 * 127 = 32004), two columns of eight bits (2 * 128 * 127 = 32512), since activations are at most 127. */
#include "neon_vec.h"
#include "over_vec.inc"
#include "codes.inc"

#define GATHERS 1

/* Quads of a block, each in all four places of a vector. */
struct activations {
    int8x16_t quad[8];
};

/* Products of four rows of weights and a quad lie in two vectors of 16 bits: those of rows 0 and 1, and of rows 2 and 3. */
struct sums {
    int32x4_t dot[4], upper[4];
    int16x8_t products[4][2];
};

/* Whether the products of a sum all fit in 16 bits, added to those of the next column: then they are added to sums once.
 * Else each vector of them has sums of its own, and is added to them when no more would fit. */
INLINE int fit_at_once(const int32_t most) { return most <= NARROW; }
INLINE int quads_at_once(const int32_t most) { return fit_at_once(most) ? 8 : 32767 / 127 / most; }

INLINE void load_activations(const struct q8_block *x, int i, int n, int first, struct activations *loaded)
{
    (void)first;
    UNROLL_FOR (int j = i; j < i + n; j++) {
        int32_t word;
        memcpy(&word, x->q + 4 * j, 4);
        loaded->quad[j] = vreinterpretq_s8_s32(vdupq_n_s32(word));
        /* else clang takes the halves for equal, and moves that of the weights down */
        __asm__("" : "+w"(loaded->quad[j]));
    }
}

INLINE void begin_sums(const int32_t most, struct sums *sums, int32_t value) { (void)most, (void)sums, (void)value; }

INLINE void add_quad(const int32_t most, struct sums *sums, int g, int8x16_t w, const struct activations *x, int i,
                     int n, int quads)
{
    const int some = quads_at_once(most);
    int16x8_t *p = sums->products[g];
    if (n % some == 0) {
        p[0] = vmull_s8(vget_low_s8(w), vget_low_s8(x->quad[i]));
        p[1] = vmull_high_s8(w, x->quad[i]);
    } else {
        p[0] = vmlal_s8(p[0], vget_low_s8(w), vget_low_s8(x->quad[i]));
        p[1] = vmlal_high_s8(p[1], w, x->quad[i]);
    }
    if (fit_at_once(most) || (n + 1 < quads && (n + 1) % some)) return;
    sums->dot[g] = n < some ? vpaddlq_s16(p[0]) : vpadalq_s16(sums->dot[g], p[0]);
    sums->upper[g] = n < some ? vpaddlq_s16(p[1]) : vpadalq_s16(sums->upper[g], p[1]);
}

INLINE void settle(struct sums *sums)
{
    (void)sums;
    __asm__ volatile("" ::: "memory");
}

INLINE void end_sums(const int32_t most, struct sums *sums, int32_t value)
{
    UNROLL_FOR (int g = 0; g < 4; g++) {
        const int16x8_t *p = sums->products[g];
        const int32x4_t first = vdupq_n_s32(value);
        sums->dot[g] = fit_at_once(most) ? vpadalq_s16(first, vpaddq_s16(p[0], p[1]))
                                         : vpaddq_s32(sums->dot[g], sums->upper[g]) + first;
    }
}

#include "row_tiles.inc"

#define TABLE sis_neon
#define ISA "neon"
#include "table.inc"
