/* BF16 weights by vdpbf16ps: products of pairs of bfloat16, added in 32 bits. Activations are rounded to bfloat16 too, to
 * nearest even; what is smaller than a normal number becomes zero.
 *
 * What prepare_bfloats writes for M rows: pairs [k / 2][M], the last of an odd k with a zero. */
#include "bfloats.h"

/* The pairs of a row, `m` words from one to the next. */
INLINE void put_pairs(const float *x, size_t k, uint32_t m, uint32_t *out)
{
    enum { PAIRS = 16 };
    for (size_t i = 0; i < k; i += 2 * PAIRS) {
        const uint32_t left = k - i < 2 * PAIRS ? (uint32_t)(k - i) : 2 * PAIRS;
        const __mmask32 there = (__mmask32)(UINT32_MAX >> (2 * PAIRS - left));
        const __m512 low = _mm512_maskz_loadu_ps((__mmask16)there, x + i);
        const __m512 high = left > PAIRS ? _mm512_maskz_loadu_ps((__mmask16)(there >> 16), x + i + 16) : (__m512){0};
        const __m512i pairs = (__m512i)_mm512_cvtne2ps_pbh(high, low);
        const uint32_t n = (left + 1) / 2;
        if (m == 1) _mm512_mask_storeu_epi32(out + i / 2, (__mmask16)(UINT16_MAX >> (PAIRS - n)), pairs);
        else {
            uint32_t words[PAIRS];
            _mm512_storeu_si512(words, pairs);
            for (uint32_t j = 0; j < n; j++) out[(i / 2 + j) * m] = words[j];
        }
    }
}

static void prepare_bfloats(const float *x, size_t stride, uint32_t m, size_t k, float *out)
{
    for (uint32_t r = 0; r < m; r++) put_pairs(x + r * stride, k, m, (uint32_t *)(void *)out + r);
}

INLINE void add_pairs(const int M, __m512i w, const uint32_t *x, __m512 *acc)
{
    UNROLL_FOR (int m = 0; m < M; m++)
        acc[m] = _mm512_dpbf16_ps(acc[m], (__m512bh)w, (__m512bh)_mm512_set1_epi32((int)x[m]));
}

/* acc[tile][m][16] += sum over k of w[k][16] * x[k][m], of N tiles. Even and odd pairs have sums of their own: one chain of
 * additions would be slower than memory. */
INLINE void multiply_bfloats(const int N, const int M, const uint8_t *const *tiles, const uint32_t *x, size_t k,
                             __m512 *acc)
{
    const struct ahead ahead = ahead_of(M);
    __m512 odd[PAIR * MAX_GROUP];
    size_t j = 0;
    UNROLL_FOR (int m = 0; m < N * M; m++) odd[m] = _mm512_setzero_ps();
    for (; j + 2 <= k / 2; j += 2, x += 2 * M)
        UNROLL_FOR (int s = 0; s < 2; s++)
            UNROLL_FOR (int t = 0; t < N; t++) {
                const uint8_t *w = tiles[t] + (j + (size_t)s) * 64;
                ask(w, ahead);
                if (N > 1) KEEP_ORDER;
                add_pairs(M, side_by_side(_mm512_loadu_si512(w)), x + s * M, (s ? odd : acc) + t * M);
            }
    if (j < k / 2) {
        UNROLL_FOR (int t = 0; t < N; t++)
            add_pairs(M, side_by_side(_mm512_loadu_si512(tiles[t] + j * 64)), x, acc + t * M);
        j++, x += M;
    }
    if (k % 2)
        UNROLL_FOR (int t = 0; t < N; t++)
            add_pairs(M, _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(tiles[t] + j * 64))), x,
                      (j % 2 ? odd : acc) + t * M);
    UNROLL_FOR (int m = 0; m < N * M; m++) acc[m] = _mm512_add_ps(acc[m], odd[m]);
}

#define BFLOATS_CASE(M)                                                                                                \
    case M: {                                                                                                          \
        __m512 acc[N * M];                                                                                             \
        UNROLL_FOR (int i = 0; i < N * M; i++) acc[i] = _mm512_setzero_ps();                                           \
        multiply_bfloats(N, M, tiles, x, k, acc);                                                                      \
        UNROLL_FOR (int i = 0; i < N * M; i++) v_store(ys[i / M] + i % M * VL, (vf)acc[i]);                            \
        break;                                                                                                         \
    }

static void tile_bf16(const uint8_t *w, const void *xs, uint32_t m, size_t k, float *y)
{
    enum { N = 1 };
    const uint32_t *x = (const uint32_t *)xs + k * m;
    const uint8_t *const tiles[N] = {w};
    float *const ys[N] = {y};
    switch (m) {
        FOR_EACH_M(BFLOATS_CASE)
    }
}

static void pair_bf16(const uint8_t *const tiles[2], const void *xs, uint32_t m, size_t k, float *const ys[2])
{
    enum { N = PAIR };
    const uint32_t *x = (const uint32_t *)xs + k * m;
    switch (m) {
        FOR_EACH_FEW(BFLOATS_CASE)
    }
}
