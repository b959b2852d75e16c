/* Sixteen blocks of a row of activations at a time: what a block needs from its 32 values, their largest magnitude and
 * their sums, is found for all sixteen by folding vectors into each other. The bits are those of prepare_block. */
#ifndef SIS_ZMM_BLOCKS_H
#define SIS_ZMM_BLOCKS_H

#include "transpose.h"

#define BLOCKS_AT_ONCE 16

/* Of two vectors the lower halves of lanes of `SIZE` bits, and the upper ones, folded by OP. */
#define FOLDED(OP, SIZE, A, B) OP(_mm512_unpacklo_epi##SIZE(A, B), _mm512_unpackhi_epi##SIZE(A, B))
/* Word w of each sixteen bytes: those of vector w, folded. */
#define FOLDED_WORDS(OP, V) FOLDED(OP, 64, FOLDED(OP, 32, (V)[0], (V)[1]), FOLDED(OP, 32, (V)[2], (V)[3]))
#define FOLDED_QUARTERS(OP, A, B, LOW, HIGH) OP(_mm512_shuffle_i32x4(A, B, LOW), _mm512_shuffle_i32x4(A, B, HIGH))

/* The largest magnitude of each block as an integer, by which infinities and NaN are above all others. */
INLINE __m512i tops_of(const float *x)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i tops[BLOCKS_AT_ONCE], fours[4];
    UNROLL_FOR (int i = 0; i < BLOCKS_AT_ONCE; i++)
        tops[i] = _mm512_max_epi32(_mm512_and_si512(_mm512_loadu_si512(x + i * BLOCK), magnitude),
                                   _mm512_and_si512(_mm512_loadu_si512(x + i * BLOCK + 16), magnitude));
    UNROLL_FOR (int i = 0; i < 4; i++) fours[i] = FOLDED_WORDS(_mm512_max_epi32, tops + 4 * i);
    const __m512i low = FOLDED_QUARTERS(_mm512_max_epi32, fours[0], fours[1], 0x44, 0xee);
    const __m512i high = FOLDED_QUARTERS(_mm512_max_epi32, fours[2], fours[3], 0x44, 0xee);
    return FOLDED_QUARTERS(_mm512_max_epi32, low, high, 0x88, 0xdd);
}

INLINE __m256i rounded_block(const float *x, float inverse)
{
    const __m512 v = _mm512_set1_ps(inverse);
    const __m128i low = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), v)));
    const __m128i high = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16), v)));
    return _mm256_max_epi8(_mm256_set_m128i(high, low), _mm256_set1_epi8(-127));
}

/* Four numbers of each block, from `words` of all sixteen, to an offset of the blocks. */
INLINE void store_words(words_16 words[4], struct q8_block *o, size_t apart, size_t offset)
{
    transpose_16(words);
    UNROLL_FOR (int w = 0; w < 4; w++) {
        char *to = (char *)(o + w * apart) + offset;
        const __m512i v = (__m512i)words[w];
        _mm_storeu_si128((void *)to, _mm512_extracti32x4_epi32(v, 0));
        _mm_storeu_si128((void *)(to + 4 * apart * sizeof *o), _mm512_extracti32x4_epi32(v, 1));
        _mm_storeu_si128((void *)(to + 8 * apart * sizeof *o), _mm512_extracti32x4_epi32(v, 2));
        _mm_storeu_si128((void *)(to + 12 * apart * sizeof *o), _mm512_extracti32x4_epi32(v, 3));
    }
}

INLINE void prepare_sixteen(const float *x, struct q8_block *o, size_t apart)
{
    const __m512i tops = tops_of(x), zero = _mm512_setzero_si512();
    const __mmask16 bad = _mm512_cmpge_epi32_mask(tops, _mm512_set1_epi32(0x7f800000));
    /* As q8_scale. */
    __m512 d = _mm512_div_ps(_mm512_castsi512_ps(_mm512_mask_mov_epi32(tops, bad, zero)), _mm512_set1_ps(127.0f));
    __m512 inverse = _mm512_maskz_div_ps(_mm512_cmp_ps_mask(d, _mm512_setzero_ps(), _CMP_GT_OQ), _mm512_set1_ps(1), d);
    const __mmask16 fits = _mm512_cmp_ps_mask(inverse, _mm512_set1_ps(3e38f), _CMP_LE_OQ);
    float inverses[BLOCKS_AT_ONCE];
    _mm512_storeu_ps(inverses, _mm512_maskz_mov_ps(fits, inverse));
    d = _mm512_mask_mov_ps(_mm512_maskz_mov_ps(fits, d), bad, _mm512_set1_ps(__builtin_nanf("")));

    __m512i sums[BLOCKS_AT_ONCE / 2]; /* four of each half of a block, and of the next */
    UNROLL_FOR (int i = 0; i < BLOCKS_AT_ONCE; i += 2) {
        const __m256i q = rounded_block(x + i * BLOCK, inverses[i]);
        const __m256i next = rounded_block(x + (i + 1) * BLOCK, inverses[i + 1]);
        _mm256_storeu_si256((void *)o[i * apart].q, q);
        _mm256_storeu_si256((void *)o[(i + 1) * apart].q, next);
        sums[i / 2] =
            _mm512_dpbusd_epi32(zero, _mm512_set1_epi8(1), _mm512_inserti64x4(_mm512_castsi256_si512(q), next, 1));
    }
    const __m512i first = FOLDED_WORDS(_mm512_add_epi32, sums), second = FOLDED_WORDS(_mm512_add_epi32, sums + 4);
    const __m512i lows = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 16, 24, 17, 25, 18, 26, 19, 27);
    const __m512i low = _mm512_permutex2var_epi32(first, lows, second);
    const __m512i high = _mm512_permutex2var_epi32(first, _mm512_add_epi32(lows, _mm512_set1_epi32(4)), second);

    /* As q8_finish. */
    const __m512i sum = _mm512_add_epi32(low, high);
    const __m512 minus_d = (__m512)_mm512_xor_si512((__m512i)d, _mm512_set1_epi32(INT32_MIN));
    words_16 words[4] = {
        (words_16)d,
        (words_16)_mm512_mul_ps(minus_d, _mm512_cvtepi32_ps(sum)),
        (words_16)_mm512_sub_epi32(zero, _mm512_slli_epi32(sum, 3)),
        (words_16)_mm512_sub_epi32(zero, _mm512_slli_epi32(sum, 7)),
    };
    store_words(words, o, apart, offsetof(struct q8_block, d));
    words[0] = (words_16)_mm512_sub_epi32(zero, _mm512_slli_epi32(low, 5));
    words[1] = (words_16)_mm512_sub_epi32(zero, _mm512_slli_epi32(high, 5));
    words[2] = (words_16)_mm512_mul_ps(minus_d, _mm512_cvtepi32_ps(low));
    words[3] = (words_16)_mm512_mul_ps(minus_d, _mm512_cvtepi32_ps(high));
    store_words(words, o, apart, offsetof(struct q8_block, minus_32));
}

INLINE void prepare_blocks(const float *x, size_t n, struct q8_block *o, size_t apart)
{
    for (; n >= BLOCKS_AT_ONCE; n -= BLOCKS_AT_ONCE, x += BLOCKS_AT_ONCE * BLOCK, o += BLOCKS_AT_ONCE * apart)
        prepare_sixteen(x, o, apart);
    for (; n; n--, x += BLOCK, o += apart) prepare_block(x, o);
}
#define HAS_PREPARE_BLOCKS

#endif
