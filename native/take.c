/* Single rows of a weight as floats: the embedding of tokens. From raw rows, or from the tiles that a head shares. */
#include "kernels.h"
#include <string.h>
#define VL 4
#include "vec.h"
#include "kinds.h"
#include "unpack.inc"

/* What a code of a kind stands for. */
static float value_of(struct sis_kind kind, const int8_t *table, uint8_t code)
{
    if (kind.codes == SIS_TABLE) return (float)table[code & 63];
    return kind.codes == SIS_UNSIGNED ? (float)code : (float)(int8_t)code;
}

/* n values that share a scale and a minimum. */
static void take_group(struct sis_kind kind, const int8_t *table, const uint8_t *restrict codes, size_t n, float scale,
                       float minimum, float *restrict out)
{
    if (kind.codes == SIS_TABLE)
        for (size_t i = 0; i < n; i++) out[i] = scale * (float)table[codes[i] & 15] - minimum;
    else if (kind.codes == SIS_UNSIGNED)
        for (size_t i = 0; i < n; i++) out[i] = scale * (float)codes[i] - minimum;
    else
        for (size_t i = 0; i < n; i++) out[i] = scale * (float)(int8_t)codes[i] - minimum;
}

/* A raw row of packed blocks, 256 columns at a time. */
static void take_blocks(uint32_t format, const uint8_t *row, size_t n_cols, float *out)
{
    struct sis_kind kind;
    uint8_t codes[SUPER];
    float scales[SUPER / 16], minima[SUPER / 16], super = 1, super_minimum = 1;
    sis_kind_of(format, &kind);
    for (size_t k = 0; k < n_cols; k += SUPER) {
        const size_t n = n_cols - k < SUPER ? n_cols - k : SUPER;
        unpack_piece(format, row, k, n, kind.group, (struct piece){codes, scales, minima, &super, &super_minimum});
        for (size_t i = 0; i < n; i += kind.group) {
            const float scale = kind.scales == SIS_SUPER ? super : super * scales[i / kind.group];
            const float minimum = has_minima(kind) ? super_minimum * minima[i / kind.group] : 0;
            take_group(kind, table_of(format), codes + i, kind.group, scale, minimum, out + k + i);
        }
    }
}

/* Code k of a block in row r of a tile; kinds.h has the layout. */
static uint8_t code_at(struct sis_kind kind, const uint8_t *codes, uint32_t k, uint32_t r)
{
    const uint32_t quad = k / 4, lane = r * 4 + k % 4;
    uint32_t code = 0;
    if (kind.bits == 8) return codes[quad * 64 + lane];
    if (kind.bits >= 4) {
        code = codes[quad / 2 * 64 + lane] >> quad % 2 * 4 & 15;
        codes += 256;
    } else if (kind.bits > 1) {
        code = codes[quad / 4 * 64 + lane] >> quad % 4 * 2 & 3;
        codes += 128;
    }
    if (kind.bits == 6) code |= (codes[quad / 4 * 64 + lane] >> quad % 4 * 2 & 3u) << 4;
    if (kind.bits % 2) code |= (codes[lane] >> quad & 1u) << (kind.bits - 1);
    return (uint8_t)(code - (uint32_t)code_offset(kind));
}

static float bfloat_at(const uint8_t *p)
{
    uint32_t bits = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 24;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

/* A scale of row r; a minimum is `is_minimum`. */
static float scale_at(struct sis_kind kind, const uint8_t *unit, const uint8_t *scales, uint32_t r, int is_minimum)
{
    if (kind.scales == SIS_HALF) return half_from(scales + r * 2);
    if (kind.scales == SIS_BFLOAT) return bfloat_at(scales + r * 2);
    const float super = half_from(unit + (is_minimum ? 32 : 0) + r * 2);
    if (kind.scales == SIS_SUPER) return super;
    if (kind.scales == SIS_NIBBLE) return super * (float)(is_minimum ? scales[r] >> 4 : scales[r] & 15);
    return super * (is_minimum ? (float)scales[r] : (float)(int8_t)scales[r]);
}

/* Row r of a tile. */
static void take_tile(uint32_t format, const uint8_t *tile, uint32_t r, size_t n_cols, float *out)
{
    struct sis_kind kind;
    sis_kind_of(format, &kind);
    const size_t minima = kind.scales == SIS_NIBBLE ? 0 : scale_bytes(kind) * (size_t)n_groups(kind);
    for (size_t b = 0; b < n_cols / BLOCK; b++, out += BLOCK) {
        const struct block_at at = block_at(kind, tile, b);
        for (uint32_t g = 0, n = group_columns(kind); g * n < BLOCK; g++) {
            const uint8_t *scales = at.scales + g * scale_bytes(kind);
            const float scale = scale_at(kind, at.unit, scales, r, 0);
            const float minimum = has_minima(kind) ? scale_at(kind, at.unit, scales + minima, r, 1) : 0;
            for (uint32_t i = g * n; i < (g + 1) * n; i++) {
                const float v = scale * value_of(kind, (const int8_t *)tile, code_at(kind, at.codes, i, r));
                out[i] = has_minima(kind) ? v - minimum : v;
            }
        }
    }
}

/* Values `step` bytes apart: neighbours in a row, sixteen lanes apart in a tile. */
static void take_single(uint32_t format, const uint8_t *p, size_t step, size_t n, float *out)
{
    for (size_t k = 0; k < n; k++, p += step)
        if (format == SIS_F32) memcpy(out + k, p, 4);
        else out[k] = format == SIS_F16 ? half_from(p) : bfloat_at(p);
}

static void take_raw(const struct sis_weight *weight, size_t row, float *out)
{
    const uint8_t *p = weight->raw + row * weight->row_bytes;
    size_t n = weight->n_cols;
    switch (weight->format) {
    case SIS_F32:
    case SIS_F16:
    case SIS_BF16: take_single(weight->format, p, weight->format == SIS_F32 ? 4 : 2, n, out); break;
    case SIS_DECODED: weight->decode(p, weight->row_bytes, 1, n, out); break;
    default: take_blocks(weight->format, p, n, out);
    }
}

static void take_tiled(const struct sis_weight *weight, size_t row, float *out)
{
    size_t n = weight->n_cols, size = weight->format == SIS_F32 ? 4 : 2;
    const uint8_t *tile = weight->tiles + row / TILE * sis_one_tile_bytes(weight->format, n);
    uint32_t r = row % TILE;
    switch (weight->format) {
    case SIS_F32:
    case SIS_F16:
    case SIS_BF16: take_single(weight->format, tile + r * size, TILE * size, n, out); break;
    default: take_tile(weight->format, tile, r, n, out);
    }
}

void sis_take_row(const struct sis_weight *weight, int32_t row, float *out)
{
    if (weight->tiles) take_tiled(weight, (size_t)row, out);
    else take_raw(weight, (size_t)row, out);
}
