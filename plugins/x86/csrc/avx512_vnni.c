/* AVX-512 F, BW, VL and VNNI. vpdpbusd adds four products of unsigned weights and signed activations to each lane; what
 * the weights' offset adds is in q8_block, as the value that a sum starts from. */
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
#define V_HAS_FMA
#define V_HAS_MAX
#define V_HAS_HALF
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

#include "over_vec.inc"

INLINE __m512i quad(const struct q8_block *x, int i)
{
    int32_t word;
    memcpy(&word, x->q + 4 * i, 4);
    return _mm512_set1_epi32(word);
}

INLINE __m512 halves(const uint8_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }

#define START(FIELD)                                                                                                   \
    UNROLL_FOR (int m = 0; m < M; m++) d[m] = _mm512_set1_epi32(x[m].FIELD)
#define STEP(W, I)                                                                                                     \
    UNROLL_FOR (int m = 0; m < M; m++) d[m] = _mm512_dpbusd_epi32(d[m], W, quad(x + m, I))
#define FINISH(SCALE)                                                                                                  \
    UNROLL_FOR (int m = 0; m < M; m++)                                                                                 \
    acc[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(d[m]), _mm512_mul_ps(SCALE, _mm512_set1_ps(x[m].d)), acc[m])

INLINE void q8_0(const int M, const uint8_t *w, const struct q8_block *x, size_t k, __m512 *acc)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    for (size_t b = 0; b < k / 32; b++, x += M) {
        const uint8_t *pair = w + b / 2 * PAIR_Q8_0, *s = pair + b % 2 * 32, *q = pair + 64 + b % 2 * 512;
        _mm_prefetch((const char *)s + FAR, _MM_HINT_T0);
        __m512i d[MAX_GROUP];
        START(minus_128);
        UNROLL_FOR (int i = 0; i < 8; i++) {
            _mm_prefetch((const char *)q + FAR + i * 64, _MM_HINT_T0);
            __m512i v = _mm512_xor_si512(_mm512_loadu_si512(q + i * 64), flip);
            STEP(v, i);
        }
        FINISH(halves(s));
    }
}

INLINE void q4_0(const int M, const uint8_t *w, const struct q8_block *x, size_t k, __m512 *acc)
{
    const __m512i low = _mm512_set1_epi8(15);
    for (size_t b = 0; b < k / 32; b++, x += M) {
        const uint8_t *pair = w + b / 2 * PAIR_Q4_0, *s = pair + b % 2 * 32, *q = pair + 64 + b % 2 * 256;
        _mm_prefetch((const char *)s + FAR, _MM_HINT_T0);
        __m512i d[MAX_GROUP];
        START(minus_8);
        UNROLL_FOR (int i = 0; i < 4; i++) {
            _mm_prefetch((const char *)q + FAR + i * 64, _MM_HINT_T0);
            __m512i v = _mm512_loadu_si512(q + i * 64);
            STEP(_mm512_and_si512(v, low), 2 * i);
            v = _mm512_and_si512(_mm512_srli_epi16(v, 4), low);
            STEP(v, 2 * i + 1);
        }
        FINISH(halves(s));
    }
}

INLINE void q4_k(const int M, const uint8_t *w, const struct q8_block *x, size_t k, __m512 *acc)
{
    const __m512i low = _mm512_set1_epi8(15);
    for (size_t b = 0; b < k / 256; b++, w += 2368) {
        const __m512 super = halves(w), super_min = halves(w + 32);
        for (int i = 0; i < 5; i++) _mm_prefetch((const char *)w + 2368 + i * 64, _MM_HINT_T0);
        for (int sub = 0; sub < 8; sub++, x += M) {
            const uint8_t *s = w + 64 + sub * 32, *q = w + 320 + sub * 256;
            __m512 scale =
                _mm512_mul_ps(super, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)s))));
            __m512 min = _mm512_mul_ps(
                super_min, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(s + 16)))));
            __m512i d[MAX_GROUP];
            UNROLL_FOR (int m = 0; m < M; m++) d[m] = _mm512_setzero_si512();
            UNROLL_FOR (int i = 0; i < 4; i++) {
                _mm_prefetch((const char *)q + FAR + i * 64, _MM_HINT_T0);
                __m512i v = _mm512_loadu_si512(q + i * 64);
                STEP(_mm512_and_si512(v, low), 2 * i);
                v = _mm512_and_si512(_mm512_srli_epi16(v, 4), low);
                STEP(v, 2 * i + 1);
            }
            FINISH(scale);
            UNROLL_FOR (int m = 0; m < M; m++) acc[m] = _mm512_fmadd_ps(min, _mm512_set1_ps(x[m].minus_ds), acc[m]);
        }
    }
}

INLINE void q6_k(const int M, const uint8_t *w, const struct q8_block *x, size_t k, __m512 *acc)
{
    const __m512i low = _mm512_set1_epi8(15), high = _mm512_set1_epi8(0x30);
    for (size_t b = 0; b < k / 256; b++, w += 3392) {
        const __m512 super = halves(w);
        for (int i = 0; i < 5; i++) _mm_prefetch((const char *)w + 3392 + i * 64, _MM_HINT_T0);
        for (int sub = 0; sub < 8; sub++, x += M) {
            const uint8_t *q = w + 320 + sub * 384;
            UNROLL_FOR (int h = 0; h < 2; h++) {
                const uint8_t *s = w + 64 + (sub * 2 + h) * 16;
                __m512 scale =
                    _mm512_mul_ps(super, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)s))));
                __m512i up = _mm512_loadu_si512(q + 256 + h * 64), d[MAX_GROUP];
                START(minus_32[h]);
                UNROLL_FOR (int i = 0; i < 2; i++) {
                    _mm_prefetch((const char *)q + FAR + (h * 3 + i) * 64, _MM_HINT_T0);
                    __m512i v = _mm512_loadu_si512(q + (h * 2 + i) * 64);
                    __m512i u0 = i ? up : _mm512_slli_epi16(up, 4),
                            u1 = i ? _mm512_srli_epi16(up, 2) : _mm512_slli_epi16(up, 2);
                    STEP(_mm512_or_si512(_mm512_and_si512(v, low), _mm512_and_si512(u0, high)), h * 4 + 2 * i);
                    v = _mm512_and_si512(_mm512_srli_epi16(v, 4), low);
                    STEP(_mm512_or_si512(v, _mm512_and_si512(u1, high)), h * 4 + 2 * i + 1);
                }
                _mm_prefetch((const char *)q + FAR + (h * 3 + 2) * 64, _MM_HINT_T0);
                FINISH(scale);
            }
        }
    }
}

#define QUANT_CASE(M)                                                                                                  \
    case M: {                                                                                                          \
        __m512 acc[MAX_GROUP];                                                                                         \
        UNROLL_FOR (int i = 0; i < M; i++) acc[i] = _mm512_setzero_ps();                                               \
        KERNEL(M, w, x, k, acc);                                                                                       \
        UNROLL_FOR (int i = 0; i < M; i++) _mm512_storeu_ps(y + i * TILE, acc[i]);                                     \
        break;                                                                                                         \
    }
#define QUANT_TILE                                                                                                     \
    (const uint8_t *w, const void *x, uint32_t m, size_t k, float *y)                                                  \
    {                                                                                                                  \
        switch (m) {                                                                                                   \
            FOR_EACH_M(QUANT_CASE)                                                                                     \
        }                                                                                                              \
    }

#define KERNEL q8_0
static void tile_q8_0 QUANT_TILE
#undef KERNEL
#define KERNEL q4_0
    static void tile_q4_0 QUANT_TILE
#undef KERNEL
#define KERNEL q4_k
    static void tile_q4_k QUANT_TILE
#undef KERNEL
#define KERNEL q6_k
    static void tile_q6_k QUANT_TILE

#ifndef TABLE
#define TABLE sis_avx512_vnni
#define ISA "avx512_vnni"
#endif
#include "table.inc"
