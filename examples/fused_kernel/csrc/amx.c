/* AMX for many rows: a block of sixteen rows of weights times one of sixteen rows of activations is one instruction,
 * tdpbssd. Its sums are whole numbers, and the same ones that the other instruction sets get; scaled and added in the
 * same order, they give a row the same bits in any company. */
#include "int4.h"
#include <immintrin.h>
#include <string.h>

#define PANEL 16 /* blocks of the weights of a part, which stay in the first-level cache in 8 bits */
#define AHEAD 4  /* sums that are under way while the first of them are scaled */
#define EACH_ROW _Pragma("GCC unroll 16") for (uint64_t m = 0; m < 16; m++)

enum { SUMS, OTHER_SUMS, X = 6, W = 7 }; /* numbers of tiles */

/* What the processor reads to shape its tiles. */
struct shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

static const struct shapes SHAPES = {
    .palette = 1,
    .row_bytes = {[SUMS] = 64, [OTHER_SUMS] = 64, [X] = BLOCK, [W] = 4 * TILE},
    .rows = {[SUMS] = 16, [OTHER_SUMS] = 16, [X] = 16, [W] = BLOCK / 4},
};

/* Blocks of a tile in 8 bits: row j of each holds columns 4 j to 4 j + 3 of all sixteen rows of weights. */
static void widen(const uint8_t *tile, uint64_t first, uint64_t n, int8_t *out)
{
    const __m512i low = _mm512_set1_epi8(15), eight = _mm512_set1_epi8(8);
    for (uint64_t b = first; b < first + n; b++)
        for (int i = 0; i < 4; i++, out += 2 * 4 * TILE) {
            const __m512i both = _mm512_load_si512(codes(tile, b, i)), high = _mm512_srli_epi16(both, 4);
            _mm512_store_si512(out, _mm512_sub_epi8(_mm512_and_si512(both, low), eight));
            _mm512_store_si512(out + 4 * TILE, _mm512_sub_epi8(_mm512_and_si512(high, low), eight));
        }
}

#define MULTIPLY(SUM, B)                                                                                               \
    do {                                                                                                               \
        _tile_zero(SUM);                                                                                               \
        _tile_loadd(X, x[B].q, BLOCK);                                                                                 \
        _tile_loadd(W, weights + (B) * BLOCK * TILE, 4 * TILE);                                                        \
        _tile_dpbssd(SUM, X, W);                                                                                       \
        _tile_stored(SUM, sums[(B) % AHEAD], 64);                                                                      \
    } while (0)

/* y[16][TILE] += n blocks of a tile times sixteen rows. */
static void multiply(const int8_t *weights, const uint16_t *d, const struct sixteen *x, uint64_t n, float *y)
{
    int32_t sums[AHEAD][16][TILE] __attribute__((aligned(64)));
    __m512 acc[16];
    EACH_ROW acc[m] = _mm512_load_ps(y + m * TILE);
    MULTIPLY(SUMS, 0);
    if (n > 1) MULTIPLY(OTHER_SUMS, 1);
    for (uint64_t b = 0; b < n; b++) {
        if (b + 2 < n && b % 2) MULTIPLY(OTHER_SUMS, b + 2);
        else if (b + 2 < n) MULTIPLY(SUMS, b + 2);
        const __m512 scale = _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(d + b * TILE)));
        EACH_ROW acc[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums[b % AHEAD][m])),
                                          _mm512_mul_ps(scale, _mm512_set1_ps(x[b].d[m])), acc[m]);
    }
    EACH_ROW _mm512_store_ps(y + m * TILE, acc[m]);
}

void int4_many_amx(const uint8_t *tiles, uint64_t n_tiles, uint64_t n_blocks, const struct sixteen *x,
                   uint64_t n_groups, float (*y)[PART_TILES][16][TILE])
{
    int8_t weights[PART_TILES][PANEL * BLOCK * TILE] __attribute__((aligned(64)));
    _tile_loadconfig(&SHAPES);
    memset(y, 0, n_groups * sizeof *y);
    for (uint64_t first = 0; first < n_blocks; first += PANEL) {
        const uint64_t n = n_blocks - first < PANEL ? n_blocks - first : PANEL;
        for (uint64_t t = 0; t < n_tiles; t++) widen(tiles + t * tile_bytes(n_blocks), first, n, weights[t]);
        for (uint64_t g = 0; g < n_groups; g++)
            for (uint64_t t = 0; t < n_tiles; t++)
                multiply(weights[t], scales(tiles + t * tile_bytes(n_blocks), n_blocks, first),
                         x + g * n_blocks + first, n, y[g][t][0]);
    }
    _tile_release();
}
