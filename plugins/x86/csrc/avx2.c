/* AVX2, FMA and F16C. vpmaddubsw multiplies unsigned by signed bytes and adds pairs in 16 bits, which saturate: nibbles
 * leave room for eight such sums, six-bit values for two, and eight-bit weights go in as magnitudes with their sign moved
 * to the activations, whose magnitude is at most 127. */
#include <immintrin.h>
#define VL 8
typedef float vf8 __attribute__((vector_size(32)));
static inline __attribute__((always_inline)) vf8 v_fma(vf8 a, vf8 b, vf8 c) { return (vf8)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
static inline __attribute__((always_inline)) vf8 v_max(vf8 a, vf8 b) { return (vf8)_mm256_max_ps((__m256)a, (__m256)b); }
static inline __attribute__((always_inline)) vf8 v_min(vf8 a, vf8 b) { return (vf8)_mm256_min_ps((__m256)a, (__m256)b); }
static inline __attribute__((always_inline)) vf8 v_abs(vf8 a) { return (vf8)_mm256_andnot_ps(_mm256_set1_ps(-0.0f), (__m256)a); }
static inline __attribute__((always_inline)) vf8 v_load_half(const unsigned short *p) { return (vf8)_mm256_cvtph_ps(_mm_loadu_si128((const void *)p)); }
static inline __attribute__((always_inline)) void v_store_half(unsigned short *p, vf8 v) { _mm_storeu_si128((void *)p, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)); }
static inline __attribute__((always_inline)) vf8 v_load_bfloat(const unsigned short *p) { return (vf8)_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p)), 16)); }
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
    __m256i q = _mm256_permutevar8x32_epi32(words, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)); /* packing is by halves */
    q = _mm256_max_epi8(q, _mm256_set1_epi8(-127));
    _mm256_storeu_si256((void *)o->q, q);
    const __m256i s = _mm256_sad_epu8(_mm256_xor_si256(q, _mm256_set1_epi8((char)0x80)), _mm256_setzero_si256());
    const __m256i sums = _mm256_add_epi64(s, _mm256_unpackhi_epi64(s, s));
    q8_finish(o, bad ? __builtin_nanf("") : d, _mm256_extract_epi32(sums, 0) - 16 * 128,
              _mm256_extract_epi32(sums, 4) - 16 * 128);
}
#define HAS_PREPARE_BLOCK

#include "over_vec.inc"

INLINE __m256i quad(const struct q8_block *x, int i)
{
    int32_t word;
    memcpy(&word, x->q + 4 * i, 4);
    return _mm256_set1_epi32(word);
}

INLINE __m256 halves(const uint8_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p)); }
INLINE __m256 bytes_u(const uint8_t *p) { return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p))); }
INLINE __m256 bytes_s(const uint8_t *p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p))); }
INLINE __m256i pairs(__m256i words) { return _mm256_madd_epi16(words, _mm256_set1_epi16(1)); }

/* acc += scale * d * dot, in lanes [8 half, 8 half + 8) */
INLINE __m256 finish(__m256 acc, __m256i dot, __m256 scale, const struct q8_block *x)
{
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_mul_ps(scale, _mm256_set1_ps(x->d)), acc);
}

INLINE void q8_0(const int M, const uint8_t *w, const struct q8_block *x, size_t k, __m256 *acc)
{
    for (size_t b = 0; b < k / 32; b++, x += M) {
        const uint8_t *pair = w + b / 2 * PAIR_Q8_0, *s = pair + b % 2 * 32, *q = pair + 64 + b % 2 * 512;
        _mm_prefetch((const char *)s + FAR, _MM_HINT_T0);
        UNROLL for (int half = 0; half < 2; half++)
        {
            __m256i d[4];
            UNROLL for (int m = 0; m < M; m++) d[m] = _mm256_setzero_si256();
            UNROLL for (int i = 0; i < 8; i++)
            {
                if (half == 0) _mm_prefetch((const char *)q + FAR + i * 64, _MM_HINT_T0);
                __m256i v = _mm256_loadu_si256((const void *)(q + i * 64 + half * 32)), a = _mm256_abs_epi8(v);
                UNROLL for (int m = 0; m < M; m++) d[m] =
                    _mm256_add_epi32(d[m], pairs(_mm256_maddubs_epi16(a, _mm256_sign_epi8(quad(x + m, i), v))));
            }
            UNROLL for (int m = 0; m < M; m++) acc[2 * m + half] = finish(acc[2 * m + half], d[m], halves(s + half * 16), x + m);
        }
    }
}

/* Sums of products of nibbles, in 16 bits: 8 * 2 * 15 * 127 = 30480. */
INLINE void nibble_words(const int M, const uint8_t *w, int half, const struct q8_block *x, __m256i *d)
{
    const __m256i low = _mm256_set1_epi8(15);
    UNROLL for (int m = 0; m < M; m++) d[m] = _mm256_setzero_si256();
    UNROLL for (int i = 0; i < 4; i++)
    {
        if (half == 0) _mm_prefetch((const char *)w + FAR + i * 64, _MM_HINT_T0);
        __m256i v = _mm256_loadu_si256((const void *)(w + i * 64 + half * 32));
        __m256i a = _mm256_and_si256(v, low), b = _mm256_and_si256(_mm256_srli_epi16(v, 4), low);
        UNROLL for (int m = 0; m < M; m++)
        {
            d[m] = _mm256_add_epi16(d[m], _mm256_maddubs_epi16(a, quad(x + m, 2 * i)));
            d[m] = _mm256_add_epi16(d[m], _mm256_maddubs_epi16(b, quad(x + m, 2 * i + 1)));
        }
    }
}

INLINE void q4_0(const int M, const uint8_t *w, const struct q8_block *x, size_t k, __m256 *acc)
{
    for (size_t b = 0; b < k / 32; b++, x += M) {
        const uint8_t *pair = w + b / 2 * PAIR_Q4_0, *s = pair + b % 2 * 32, *q = pair + 64 + b % 2 * 256;
        _mm_prefetch((const char *)s + FAR, _MM_HINT_T0);
        UNROLL for (int half = 0; half < 2; half++)
        {
            __m256i d[4];
            nibble_words(M, q, half, x, d);
            __m256 scale = halves(s + half * 16);
            UNROLL for (int m = 0; m < M; m++)
            {
                __m256i dot = _mm256_add_epi32(pairs(d[m]), _mm256_set1_epi32(x[m].minus_8));
                acc[2 * m + half] = finish(acc[2 * m + half], dot, scale, x + m);
            }
        }
    }
}

INLINE void q4_k(const int M, const uint8_t *w, const struct q8_block *x, size_t k, __m256 *acc)
{
    for (size_t b = 0; b < k / 256; b++, w += 2368)
        for (int sub = 0; sub < 8; sub++, x += M)
            UNROLL for (int half = 0; half < 2; half++)
            {
                const uint8_t *s = w + 64 + sub * 32 + half * 8;
                __m256 scale = _mm256_mul_ps(halves(w + half * 16), bytes_u(s));
                __m256 min = _mm256_mul_ps(halves(w + 32 + half * 16), bytes_u(s + 16));
                __m256i d[4];
                nibble_words(M, w + 320 + sub * 256, half, x, d);
                UNROLL for (int m = 0; m < M; m++)
                {
                    __m256 a = finish(acc[2 * m + half], pairs(d[m]), scale, x + m);
                    acc[2 * m + half] = _mm256_fmadd_ps(min, _mm256_set1_ps(x[m].minus_ds), a);
                }
            }
}

INLINE void q6_k(const int M, const uint8_t *w, const struct q8_block *x, size_t k, __m256 *acc)
{
    const __m256i low = _mm256_set1_epi8(15), high = _mm256_set1_epi8(0x30);
    for (size_t b = 0; b < k / 256; b++, w += 3392)
        for (int sub = 0; sub < 8; sub++, x += M) {
            const uint8_t *q = w + 320 + sub * 384;
            UNROLL for (int h = 0; h < 2; h++)
                UNROLL for (int half = 0; half < 2; half++)
                {
                    const uint8_t *s = w + 64 + (sub * 2 + h) * 16 + half * 8;
                    __m256 scale = _mm256_mul_ps(halves(w + half * 16), bytes_s(s));
                    __m256i up = _mm256_loadu_si256((const void *)(q + 256 + h * 64 + half * 32)), d[4];
                    UNROLL for (int m = 0; m < M; m++) d[m] = _mm256_set1_epi32(x[m].minus_32[h]);
                    UNROLL for (int i = 0; i < 2; i++)
                    {
                        if (half == 0) _mm_prefetch((const char *)q + FAR + (h * 3 + i) * 64, _MM_HINT_T0);
                        __m256i v = _mm256_loadu_si256((const void *)(q + (h * 2 + i) * 64 + half * 32));
                        __m256i u0 = i ? up : _mm256_slli_epi16(up, 4);
                        __m256i u1 = i ? _mm256_srli_epi16(up, 2) : _mm256_slli_epi16(up, 2);
                        __m256i a = _mm256_or_si256(_mm256_and_si256(v, low), _mm256_and_si256(u0, high));
                        __m256i c = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(v, 4), low), _mm256_and_si256(u1, high));
                        UNROLL for (int m = 0; m < M; m++)
                        {
                            __m256i two = _mm256_add_epi16(_mm256_maddubs_epi16(a, quad(x + m, h * 4 + 2 * i)),
                                                           _mm256_maddubs_epi16(c, quad(x + m, h * 4 + 2 * i + 1)));
                            d[m] = _mm256_add_epi32(d[m], pairs(two)); /* 2 * 2 * 63 * 127 = 32004 fits 16 bits */
                        }
                    }
                    if (half == 0) _mm_prefetch((const char *)q + FAR + (h * 3 + 2) * 64, _MM_HINT_T0);
                    UNROLL for (int m = 0; m < M; m++) acc[2 * m + half] = finish(acc[2 * m + half], d[m], scale, x + m);
                }
        }
}

#define QUANT_CASE(M)                                                                                                  \
    case M: {                                                                                                          \
        __m256 acc[8];                                                                                                 \
        UNROLL for (int i = 0; i < 2 * M; i++) acc[i] = _mm256_setzero_ps();                                           \
        KERNEL(M, w, x, k, acc);                                                                                       \
        UNROLL for (int i = 0; i < 2 * M; i++) _mm256_storeu_ps(y + i * 8, acc[i]);                                    \
        break;                                                                                                         \
    }
#define QUANT_TILE                                                                                                     \
    (const uint8_t *w, const void *x, uint32_t m, size_t k, float *y)                                                  \
    {                                                                                                                  \
        switch (m) { FOR_EACH_M(QUANT_CASE) }                                                                          \
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

#define TABLE sis_avx2
#define ISA "avx2"
#include "table.inc"
