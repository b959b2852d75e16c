/* Floats as one bfloat16 each, or as two that add up to all but 2^-16 of it, in the tiles of AMX. */
#ifndef SIS_BFLOATS_H
#define SIS_BFLOATS_H

#include <immintrin.h>

#define ONE 1024 /* bytes of a tile */

/* What is left of 2 x 16 floats after `rounded` was taken from them, in bfloat16. */
INLINE __m512i remainder_of(__m512 low, __m512 high, __m512 rounded_low, __m512 rounded_high)
{
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_sub_ps(high, rounded_high), _mm512_sub_ps(low, rounded_low));
}

INLINE __m512 widened(__m256i half) { return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16); }

/* A row of a left tile: 32 values in order. With `split`, what rounding has left lies `rest` bytes further on. */
INLINE void put_row(const int split, uint8_t *out, __m512 low, __m512 high, size_t rest)
{
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(high, low);
    _mm512_store_si512(out, both);
    if (split)
        _mm512_store_si512(out + rest, remainder_of(low, high, widened(_mm512_castsi512_si256(both)),
                                                    widened(_mm512_extracti64x4_epi64(both, 1))));
}

/* The right tile of a product holds in row j, for each of sixteen columns, the values of k = 2 j and 2 j + 1. */
INLINE __m512i side_by_side(__m512i even_then_odd)
{
    static const uint16_t ORDER[32] __attribute__((aligned(64))) = {
        0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31,
    };
    return _mm512_permutexvar_epi16(_mm512_load_si512(ORDER), even_then_odd);
}

/* A row of it. */
INLINE void put(uint8_t *out, __m512 even, __m512 odd)
{
    _mm512_store_si512(out, side_by_side((__m512i)_mm512_cvtne2ps_pbh(odd, even)));
}

/* The same, and what rounding has left two tiles further on. */
INLINE void put_split(uint8_t *out, __m512 even, __m512 odd)
{
    const __m512i pairs = side_by_side((__m512i)_mm512_cvtne2ps_pbh(odd, even));
    const __m512 rounded_even = (__m512)_mm512_slli_epi32(pairs, 16);
    const __m512 rounded_odd = (__m512)_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000));
    _mm512_store_si512(out, pairs);
    _mm512_store_si512(out + 2 * ONE, side_by_side(remainder_of(even, odd, rounded_even, rounded_odd)));
}

#endif
