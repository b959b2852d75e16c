/* Vectors of 32 bytes: what vec.h and the row operations take from AVX2, FMA and F16C. */
#include <immintrin.h>
#define VL 8
typedef float vf8 __attribute__((vector_size(32)));
static inline __attribute__((always_inline)) vf8 v_fma(vf8 a, vf8 b, vf8 c)
{
    return (vf8)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
static inline __attribute__((always_inline)) vf8 v_max(vf8 a, vf8 b)
{
    return (vf8)_mm256_max_ps((__m256)a, (__m256)b);
}
static inline __attribute__((always_inline)) vf8 v_min(vf8 a, vf8 b)
{
    return (vf8)_mm256_min_ps((__m256)a, (__m256)b);
}
static inline __attribute__((always_inline)) vf8 v_abs(vf8 a)
{
    return (vf8)_mm256_andnot_ps(_mm256_set1_ps(-0.0f), (__m256)a);
}
static inline __attribute__((always_inline)) vf8 v_load_half(const unsigned short *p)
{
    return (vf8)_mm256_cvtph_ps(_mm_loadu_si128((const void *)p));
}
static inline __attribute__((always_inline)) void v_store_half(unsigned short *p, vf8 v)
{
    _mm_storeu_si128((void *)p, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline __attribute__((always_inline)) vf8 v_load_bfloat(const unsigned short *p)
{
    return (vf8)_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p)), 16));
}
static inline __attribute__((always_inline)) int __attribute__((vector_size(32)))
v_words(int __attribute__((vector_size(32))) table, int __attribute__((vector_size(32))) at)
{
    return (int __attribute__((vector_size(32))))_mm256_permutevar8x32_epi32((__m256i)table, (__m256i)at);
}
#define V_HAS_FMA
#define V_HAS_MAX
#define V_HAS_HALF
#include "vec.h"

/* Magnitudes compare as integers, with infinities and NaN above all others. Sums of bytes come from differences to zero
 * after they were moved to 0..255. */
INLINE void prepare_block(const float *x, struct q8_block *o)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256 v[4];
    __m256i top = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_loadu_ps(x + 8 * i);
        top = _mm256_max_epi32(top, _mm256_and_si256(_mm256_castps_si256(v[i]), magnitude));
    }
    __m128i t = _mm_max_epi32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
    t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0x4e));
    t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0xb1));
    const int bad = _mm_cvtsi128_si32(t) >= 0x7f800000;
    float inverse, d = q8_scale(bad ? 0 : _mm_cvtss_f32(_mm_castsi128_ps(t)), &inverse);
    __m256i n[4];
    for (int i = 0; i < 4; i++) n[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], _mm256_set1_ps(inverse)));
    const __m256i words = _mm256_packs_epi16(_mm256_packs_epi32(n[0], n[1]), _mm256_packs_epi32(n[2], n[3]));
    __m256i q =
        _mm256_permutevar8x32_epi32(words, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)); /* packing is by halves */
    q = _mm256_max_epi8(q, _mm256_set1_epi8(-127));
    _mm256_storeu_si256((void *)o->q, q);
    const __m256i s = _mm256_sad_epu8(_mm256_xor_si256(q, _mm256_set1_epi8((char)0x80)), _mm256_setzero_si256());
    const __m256i sums = _mm256_add_epi64(s, _mm256_unpackhi_epi64(s, s));
    q8_finish(o, bad ? __builtin_nanf("") : d, _mm256_extract_epi32(sums, 0) - 16 * 128,
              _mm256_extract_epi32(sums, 4) - 16 * 128);
}
#define HAS_PREPARE_BLOCK

#include "over_vec.inc"
