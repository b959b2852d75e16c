/* A quad of TERNARY from anywhere in a unit, over sixteen lanes: kind_blocks.inc reads them one after the other. */
#ifndef SIS_TERNARY_H
#define SIS_TERNARY_H

/* The codes of quad i of block b. Bytes are multiplied by a power of three, each second one apart. */
INLINE __m512i ternary_quad(const uint8_t *codes, int b, int i)
{
    const __m512i v = _mm512_loadu_si512(codes + ternary_vector(b, i) * 64);
    const __m512i power = _mm512_set1_epi16(POWERS_OF_3[ternary_digit(b, i)]), ones = _mm512_set1_epi8(1);
    const __m512i even = _mm512_mullo_epi16(v, power);
    const __m512i odd = _mm512_mullo_epi16(_mm512_andnot_si512(_mm512_set1_epi16(255), v), power);
    const __m512i first = _mm512_mask_blend_epi8(0xaaaaaaaaaaaaaaaa, even, odd);
    const __m512i some = _mm512_maskz_mov_epi8(_mm512_cmpgt_epi8_mask(first, _mm512_set1_epi8(-43)), ones);
    return _mm512_mask_add_epi8(some, _mm512_cmpgt_epi8_mask(first, _mm512_set1_epi8(42)), some, ones);
}

#endif
