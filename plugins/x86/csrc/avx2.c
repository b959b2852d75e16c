/* AVX2, FMA and F16C. vpmaddubsw multiplies unsigned by signed bytes and adds pairs in 16 bits, which saturate: codes of
 * four bits leave room for eight such sums, five bits for four, six for two; weights of eight bits go in as magnitudes with
 * their sign moved to the activations, whose magnitude is at most 127. */
#include "ymm.h"
#define SIGNED_WEIGHTS 1
#define GATHERS 1
#include "kind_tiles.inc"

INLINE vc look_up(vc table, vc codes) { return (vc)_mm256_shuffle_epi8((__m256i)table, (__m256i)codes); }

/* 8 * 2 * 15 * 127 = 30480, 4 * 2 * 31 * 127 = 31496 and 2 * 2 * 63 * 127 = 32004 fit 16 bits; so does 2 * 128 * 127. */
INLINE void add_codes(const struct sis_kind kind, int last, int i, vi *sum, vi *some, vc w, int32_t x)
{
    const int wide = is_wide(kind), fit = wide ? 1 : kind.bits <= 4 ? 8 : kind.bits == 5 ? 4 : 2;
    const __m256i v = (__m256i)w, y = _mm256_set1_epi32(x);
    const __m256i products =
        wide ? _mm256_maddubs_epi16(_mm256_abs_epi8(v), _mm256_sign_epi8(y, v)) : _mm256_maddubs_epi16(v, y);
    *some = (vi)_mm256_add_epi16((__m256i)*some, products);
    if (!last && (i + 1) % fit) return;
    *sum += (vi)_mm256_madd_epi16((__m256i)*some, _mm256_set1_epi16(1));
    *some = (vi){0};
}

SIS_KINDS(KIND_TILE)

#define MANY sis_many_avx2
#include "kind_many.inc"

#define TABLE sis_avx2
#define ISA "avx2"
#include "table.inc"
