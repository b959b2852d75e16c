/* AVX-512 VNNI: vpdpbusd adds four products of unsigned weights and signed activations to each row's sum. */
#include "quantize.inc"
#include <immintrin.h>
#include <string.h>

#define FAR 2048 /* bytes: fetched this far ahead, weights come as fast as memory gives them */

static inline __attribute__((always_inline)) __m512i quad(const int8_t *q)
{
    int32_t word;
    memcpy(&word, q, 4);
    return _mm512_set1_epi32(word);
}

static inline __attribute__((always_inline)) void rows(const int M, const uint8_t *tile, const struct activations *x,
                                                       uint64_t stride, uint64_t n_blocks, float *y)
{
    const __m512i low = _mm512_set1_epi8(15);
    __m512 acc[8];
    for (int m = 0; m < M; m++) acc[m] = _mm512_setzero_ps();
    for (uint64_t b = 0; b < n_blocks; b++) {
        __m512i sum[8];
        for (int m = 0; m < M; m++) sum[m] = _mm512_set1_epi32(x[m * stride + b].minus_8);
        _mm_prefetch((const char *)scales(tile, n_blocks, b) + FAR / 8, _MM_HINT_T0);
        for (int i = 0; i < 4; i++) {
            _mm_prefetch((const char *)codes(tile, b, i) + FAR, _MM_HINT_T0);
            const __m512i both = _mm512_load_si512(codes(tile, b, i));
            const __m512i first = _mm512_and_si512(both, low), then = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
            for (int m = 0; m < M; m++) sum[m] = _mm512_dpbusd_epi32(sum[m], first, quad(x[m * stride + b].q + 8 * i));
            for (int m = 0; m < M; m++)
                sum[m] = _mm512_dpbusd_epi32(sum[m], then, quad(x[m * stride + b].q + 8 * i + 4));
        }
        const __m512 d = _mm512_cvtph_ps(_mm256_loadu_si256((const void *)scales(tile, n_blocks, b)));
        for (int m = 0; m < M; m++)
            acc[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[m]), _mm512_mul_ps(d, _mm512_set1_ps(x[m * stride + b].d)),
                                     acc[m]);
    }
    for (int m = 0; m < M; m++) _mm512_storeu_ps(y + m * TILE, acc[m]);
}

#define OF(M)                                                                                                          \
    static void of_##M(const uint8_t *tile, const struct activations *x, uint64_t stride, uint64_t n, float *y)        \
    {                                                                                                                  \
        rows(M, tile, x, stride, n, y);                                                                                \
    }
OF(1)
OF(2)
OF(4)
OF(8)

const struct isa int4_avx512_vnni = {"avx512_vnni", quantize, of_1, of_2, of_4, of_8, NULL};
const struct isa int4_amx = {"amx", quantize, of_1, of_2, of_4, of_8, int4_many_amx};
