/* Tiles of sixteen rows: their sizes, and how they are made of a weight's rows; pack.inc has the layouts. */
#include "kernels.h"
#include <string.h>

static const struct {
    uint32_t values, bytes, tile;
} FORMATS[] = {
    [SIS_F32] = {1, 4, 64},        [SIS_F16] = {1, 2, 32},     [SIS_BF16] = {1, 2, 32},
    [SIS_Q8_0] = {32, 34, 544},    [SIS_Q4_0] = {32, 18, 288}, [SIS_Q4_K] = {256, 144, 2368},
    [SIS_Q6_K] = {256, 210, 3392}, [SIS_DECODED] = {1, 0, 64},
};

size_t sis_one_tile_bytes(uint32_t format, size_t n_cols)
{
    if (format > SIS_DECODED || n_cols == 0 || n_cols % FORMATS[format].values) return 0;
    size_t n = n_cols / FORMATS[format].values;
    if (FORMATS[format].values == 32) n += n % 2; /* whole pairs */
    size_t bytes = n * FORMATS[format].tile;
    return (bytes + 63) / 64 * 64;
}

uint64_t sis_tile_bytes(uint32_t format, uint64_t n_rows, uint64_t n_cols)
{
    if (format == SIS_DECODED) return 0; /* its tiles live in the scratch of a thread */
    return (n_rows + TILE - 1) / TILE * sis_one_tile_bytes(format, n_cols);
}

/* Tile number `tile` of a weight whose `raw` is set. `scratch` holds TILE rows of floats, for SIS_DECODED. */
void sis_pack_tile(const struct sis_weight *weight, size_t tile, uint8_t *out, float *scratch)
{
    size_t first = tile * TILE, left = weight->n_rows - first, n_cols = weight->n_cols, stride = weight->row_bytes;
    size_t n_blocks = n_cols / FORMATS[weight->format].values;
    uint32_t n = left < TILE ? (uint32_t)left : TILE;
    const uint8_t *rows = weight->raw + first * stride;
    if (weight->format == SIS_DECODED) {
        weight->decode(rows, stride, n, n_cols, scratch);
        rows = (const uint8_t *)scratch;
        stride = n_cols * sizeof *scratch;
    }
    if (n < TILE || n_blocks % 2) memset(out, 0, sis_one_tile_bytes(weight->format, n_cols));
    sis_kernels()->pack(weight->format, rows, stride, n, n_blocks, out);
}
