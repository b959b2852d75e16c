/* AVX2: pairs of products in 16 bits, which cannot overflow (2 * 15 * 127), then pairs of those in 32. */
#include "quantize.inc"
#include <immintrin.h>
#include <string.h>

static inline __attribute__((always_inline)) __m256i dot(__m256i sum, __m256i w, const int8_t *q)
{
    int32_t word;
    memcpy(&word, q, 4);
    const __m256i pairs = _mm256_maddubs_epi16(w, _mm256_set1_epi32(word));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

/* Eight of a tile's rows, from number `half` on. */
static inline __attribute__((always_inline)) void rows(const int M, const int half, const uint8_t *tile,
                                                       const struct activations *x, uint64_t stride, uint64_t n_blocks,
                                                       float *y)
{
    const __m256i low = _mm256_set1_epi8(15);
    __m256 acc[4];
    for (int m = 0; m < M; m++) acc[m] = _mm256_setzero_ps();
    for (uint64_t b = 0; b < n_blocks; b++) {
        __m256i sum[4];
        for (int m = 0; m < M; m++) sum[m] = _mm256_set1_epi32(x[m * stride + b].minus_8);
        for (int i = 0; i < 4; i++) {
            const __m256i both = _mm256_load_si256((const void *)(codes(tile, b, i) + half * 4));
            const __m256i first = _mm256_and_si256(both, low), then = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
            for (int m = 0; m < M; m++) {
                sum[m] = dot(sum[m], first, x[m * stride + b].q + 8 * i);
                sum[m] = dot(sum[m], then, x[m * stride + b].q + 8 * i + 4);
            }
        }
        const __m256 d = _mm256_cvtph_ps(_mm_loadu_si128((const void *)(scales(tile, n_blocks, b) + half)));
        for (int m = 0; m < M; m++)
            acc[m] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[m]), _mm256_mul_ps(d, _mm256_set1_ps(x[m * stride + b].d)),
                                     acc[m]);
    }
    for (int m = 0; m < M; m++) _mm256_storeu_ps(y + m * TILE + half, acc[m]);
}

#define OF(M)                                                                                                          \
    static void of_##M(const uint8_t *tile, const struct activations *x, uint64_t stride, uint64_t n, float *y)        \
    {                                                                                                                  \
        rows(M, 0, tile, x, stride, n, y);                                                                             \
        rows(M, 8, tile, x, stride, n, y);                                                                             \
    }
OF(1)
OF(2)
OF(4)

static void of_8(const uint8_t *tile, const struct activations *x, uint64_t stride, uint64_t n, float *y)
{
    of_4(tile, x, stride, n, y);
    of_4(tile, x + 4 * stride, stride, n, y + 4 * TILE);
}

const struct isa int4_avx2 = {"avx2", quantize, of_1, of_2, of_4, of_8, NULL};
