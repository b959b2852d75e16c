/* AVX2, FMA and F16C. vpmaddubsw multiplies unsigned by signed bytes and adds pairs in 16 bits, which saturate: nibbles
 * leave room for eight such sums, six-bit values for two, and eight-bit weights go in as magnitudes with their sign moved
 * to the activations, whose magnitude is at most 127. */
#include "ymm.h"

INLINE __m256i pairs(__m256i words) { return _mm256_madd_epi16(words, _mm256_set1_epi16(1)); }

/* Nibbles stay in 16 bits: 8 * 2 * 15 * 127 = 30480. */
INLINE __m256i start(int32_t offset)
{
    (void)offset;
    return _mm256_setzero_si256();
}
INLINE __m256i add(__m256i d, __m256i w, __m256i x) { return _mm256_add_epi16(d, _mm256_maddubs_epi16(w, x)); }
INLINE __m256i end(__m256i d, int32_t offset) { return _mm256_add_epi32(pairs(d), _mm256_set1_epi32(offset)); }

/* 2 * 2 * 63 * 127 = 32004 fits 16 bits. */
INLINE __m256i add_two(__m256i d, __m256i a, __m256i x, __m256i b, __m256i y)
{
    return _mm256_add_epi32(d, pairs(_mm256_add_epi16(_mm256_maddubs_epi16(a, x), _mm256_maddubs_epi16(b, y))));
}

INLINE __m256i start_signed(const struct q8_block *x)
{
    (void)x;
    return _mm256_setzero_si256();
}
INLINE __m256i add_signed(__m256i d, __m256i w, __m256i x)
{
    return _mm256_add_epi32(d, pairs(_mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w))));
}

#include "ymm_tiles.inc"
#define TABLE sis_avx2
#define ISA "avx2"
#include "table.inc"
