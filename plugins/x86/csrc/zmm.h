/* What AVX-512 F, BW and VL give to loops over vectors of sixteen floats. */
#ifndef SIS_ZMM_H
#define SIS_ZMM_H

#include <immintrin.h>
#define VL 16
typedef float vf16 __attribute__((vector_size(64)));
static inline __attribute__((always_inline)) vf16 v_fma(vf16 a, vf16 b, vf16 c)
{
    return (vf16)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
static inline __attribute__((always_inline)) vf16 v_max(vf16 a, vf16 b)
{
    return (vf16)_mm512_max_ps((__m512)a, (__m512)b);
}
static inline __attribute__((always_inline)) vf16 v_min(vf16 a, vf16 b)
{
    return (vf16)_mm512_min_ps((__m512)a, (__m512)b);
}
static inline __attribute__((always_inline)) vf16 v_abs(vf16 a) { return (vf16)_mm512_abs_ps((__m512)a); }
static inline __attribute__((always_inline)) vf16 v_load_half(const unsigned short *p)
{
    return (vf16)_mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
}
static inline __attribute__((always_inline)) void v_store_half(unsigned short *p, vf16 v)
{
    _mm256_storeu_si256((void *)p, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline __attribute__((always_inline)) vf16 v_load_bfloat(const unsigned short *p)
{
    return (vf16)_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p)), 16));
}
static inline __attribute__((always_inline)) vf16 v_nibbles(int __attribute__((vector_size(64))) codes)
{
    const __m512 numbers = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
    return (vf16)_mm512_permutexvar_ps((__m512i)codes, numbers); /* an index is the low four bits */
}
#ifdef V_HAS_DOT /* acc + low * low + high * high of pairs of BF16 */
static inline __attribute__((always_inline)) vf16 v_dot(vf16 acc, int __attribute__((vector_size(64))) w, unsigned x)
{
    return (vf16)_mm512_dpbf16_ps((__m512)acc, (__m512bh)w, (__m512bh)_mm512_set1_epi32((int)x));
}
static inline __attribute__((always_inline)) void v_store_bfloat(unsigned short *p, vf16 v)
{
    _mm256_storeu_si256((void *)p, (__m256i)_mm512_cvtneps_pbh((__m512)v));
}
#endif
static inline __attribute__((always_inline)) int
    __attribute__((vector_size(64))) v_words(int __attribute__((vector_size(64))) table,
                                             int __attribute__((vector_size(64))) at)
{
    return (int __attribute__((vector_size(64))))_mm512_permutexvar_epi32((__m512i)at, (__m512i)table);
}
#define V_HAS_FMA
#define V_HAS_MAX
#define V_HAS_HALF
#define V_HAS_NIBBLES
#include "vec.h"

/* Sums of bytes come from differences to zero after they were moved to 0..255. */
INLINE void prepare_block(const float *x, struct q8_block *o)
{
    const __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
    const int bad = _mm512_fpclass_ps_mask(a, 0x99) | _mm512_fpclass_ps_mask(b, 0x99); /* NaN, infinities */
    float inverse,
        d = q8_scale(bad ? 0 : _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b))), &inverse);
    const __m512 v = _mm512_set1_ps(inverse);
    const __m128i low = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(a, v)));
    const __m128i high = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(b, v)));
    const __m256i q = _mm256_max_epi8(_mm256_set_m128i(high, low), _mm256_set1_epi8(-127));
    _mm256_storeu_si256((void *)o->q, q);
    const __m256i s = _mm256_sad_epu8(_mm256_xor_si256(q, _mm256_set1_epi8((char)0x80)), _mm256_setzero_si256());
    const __m256i t = _mm256_add_epi64(s, _mm256_unpackhi_epi64(s, s));
    q8_finish(o, bad ? __builtin_nanf("") : d, _mm256_extract_epi32(t, 0) - 16 * 128,
              _mm256_extract_epi32(t, 4) - 16 * 128);
}
#define HAS_PREPARE_BLOCK
#include "zmm_blocks.h"

#endif
