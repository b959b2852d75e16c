/* Single rows of a weight as floats: the embedding of tokens. From raw rows, or from the tiles that a head shares. */
#include "kernels.h"
#include <string.h>
#define VL 4
#include "vec.h"
#include "kinds.h"

/* For unpack.inc: a block of one row, and what is in it. */
typedef uint32_t words;

struct blocks {
    const uint8_t *first;
};

struct opened {
    uint8_t codes[SUPER];
    uint32_t numbers[2][SUPER / 16], supers[2];
};

struct place {
    struct opened *opened;
};

INLINE void words_of(struct blocks b, size_t at, words out[4]) { memcpy(out, b.first + at, 16); }

INLINE words float_bits(words number)
{
    const float value = (float)number;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

INLINE void give_codes(struct place o, int i, const words w[8]) { memcpy(o.opened->codes + i * BLOCK, w, BLOCK); }
INLINE void give_number(struct place o, int minimum, int i, words number) { o.opened->numbers[minimum][i] = number; }
INLINE void give_super(struct place o, int minimum, words half) { o.opened->supers[minimum] = half; }

INLINE void give_fractions(struct place o, const words *w)
{
    uint8_t fractions[TERNARY_VECTORS * 4];
    memcpy(fractions, w, sizeof fractions);
    for (int b = 0; b < SUPER / BLOCK; b++)
        for (int k = 0; k < BLOCK; k++)
            o.opened->codes[b * BLOCK + k] =
                code_of_digit(fractions[ternary_vector(b, k / 4) * 4 + k % 4], ternary_digit(b, k / 4));
}

#include "unpack.inc"

static float half_of(uint32_t bits) { return half_to_float((uint16_t)bits); }

static float bfloat_of(uint32_t bits)
{
    float f;
    bits <<= 16;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t two_bytes(const uint8_t *p) { return p[0] | (uint32_t)p[1] << 8; }

/* A scale or a minimum, of the lower bits of two numbers. */
static float number_of(struct sis_kind kind, uint32_t super, uint32_t number, int is_minimum)
{
    switch (kind.scales) {
    case SIS_HALF: return half_of(number);
    case SIS_BFLOAT: return bfloat_of(number);
    case SIS_SUPER: return half_of(super);
    case SIS_NIBBLE: return half_of(super) * (float)(number >> 4 * is_minimum & 15);
    default: return half_of(super) * (is_minimum ? (float)(uint8_t)number : (float)(int8_t)number);
    }
}

/* What a code of a kind stands for, once what tiles add to it is taken off, in row r of the tile that begins with `table`. */
static float value_of(struct sis_kind kind, const int8_t *table, uint32_t r, uint8_t code)
{
    if (kind.codes == SIS_ROW_TABLE) return (float)table[row_at(r) + code];
    if (kind.codes == SIS_TABLE) return (float)table[code & 63];
    return kind.codes == SIS_UNSIGNED && kind.bits < 8 ? (float)code : (float)(int8_t)code;
}

/* n values that share a scale and a minimum. */
static void take_group(struct sis_kind kind, const int8_t *table, const uint8_t *restrict codes, size_t n, float scale,
                       float minimum, float *restrict out)
{
    const uint8_t offset = (uint8_t)code_offset(kind);
    if (kind.codes == SIS_TABLE)
        for (size_t i = 0; i < n; i++) out[i] = scale * (float)table[codes[i] & 15] - minimum;
    else if (kind.codes == SIS_UNSIGNED)
        for (size_t i = 0; i < n; i++) out[i] = scale * (float)codes[i] - minimum;
    else
        for (size_t i = 0; i < n; i++) out[i] = scale * (float)(int8_t)(codes[i] - offset) - minimum;
}

/* A block of a raw row. */
INLINE void take_block(struct sis_kind kind, const int8_t *table, const struct opened *block, size_t n, float *out)
{
    const uint32_t *minima = block->numbers[kind.scales == SIS_NIBBLE ? SCALES : MINIMA];
    for (size_t i = 0, g = 0; i < n; i += kind.group, g++) {
        const float scale = number_of(kind, block->supers[SCALES], block->numbers[SCALES][g], 0);
        const float minimum = has_minima(kind) ? number_of(kind, block->supers[MINIMA], minima[g], 1) : 0;
        take_group(kind, table, block->codes + i, kind.group, scale, minimum, out + i);
    }
}

/* A raw row of packed blocks. */
static void take_blocks(uint32_t format, const uint8_t *row, size_t n_cols, float *out)
{
    struct opened block = {0};
    switch (format) {
#define TAKE(NAME, FORMAT, COLUMNS, BYTES)                                                                             \
    case FORMAT:                                                                                                       \
        for (size_t k = 0; k < n_cols; k += COLUMNS, row += BYTES) {                                                   \
            unpack_##NAME((struct blocks){row}, (struct place){&block});                                               \
            take_block(kind_of(FORMAT), table_of(FORMAT), &block, COLUMNS, out + k);                                   \
        }                                                                                                              \
        break;
        SIS_PACKED(TAKE)
#undef TAKE
    default: break;
    }
}

/* Code k of a block in row r of a tile; kinds.h has the layout. */
static uint8_t code_at(struct sis_kind kind, struct block_at at, uint32_t k, uint32_t r)
{
    const uint8_t *codes = at.codes;
    const uint32_t quad = k / 4, lane = r * 4 + k % 4;
    uint32_t code = 0;
    if (kind.codes == SIS_ROW_TABLE) return codes[row_at(r) + k % 16] >> k / 16 * 4 & 15;
    if (kind.codes == SIS_PAIRS) return (uint8_t)(pair_code(codes, r, k) - code_offset(kind));
    if (kind.codes == SIS_TERNARY) return (uint8_t)(ternary_code(codes, at.number, r, k) - code_offset(kind));
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

/* A scale of row r; a minimum is `is_minimum`. */
static float scale_at(struct sis_kind kind, const uint8_t *unit, const uint8_t *scales, uint32_t r, int is_minimum)
{
    const uint32_t super = has_supers(kind) ? two_bytes(unit + is_minimum * HALVES + r * 2) : 0;
    if (kind.scales == SIS_SUPER) return half_of(super);
    return number_of(kind, super, has_supers(kind) ? scales[r] : two_bytes(scales + r * 2), is_minimum);
}

/* Row r of a tile. */
static void take_tile(uint32_t format, const uint8_t *tile, uint32_t r, size_t n_cols, float *out)
{
    const struct sis_kind kind = kind_of(format);
    for (size_t b = 0; b < n_cols / BLOCK; b++, out += BLOCK) {
        const struct block_at at = block_at(kind, tile, b);
        for (uint32_t g = 0, n = group_columns(kind); g * n < BLOCK; g++) {
            const uint8_t *scales = at.scales + g * scale_bytes(kind);
            const float scale = scale_at(kind, at.unit, scales, r, 0);
            const float minimum = has_minima(kind) ? scale_at(kind, at.unit, scales + minima_behind(kind), r, 1) : 0;
            for (uint32_t i = g * n; i < (g + 1) * n; i++) {
                const float v = scale * value_of(kind, (const int8_t *)tile, r, code_at(kind, at, i, r));
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
        else out[k] = format == SIS_F16 ? half_of(two_bytes(p)) : bfloat_of(two_bytes(p));
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

static void take_tiled(const struct sis_weight *weight, const uint8_t *tiles, size_t row, float *out)
{
    size_t n = weight->n_cols, size = weight->format == SIS_F32 ? 4 : 2;
    const uint8_t *tile = tiles + row / TILE * sis_one_tile_bytes(weight->format, n);
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
    const size_t tile = (size_t)row / TILE;
    if (weight->tiles) take_tiled(weight, weight->tiles, (size_t)row, out);
    else if (sis_is_made(weight, tile)) take_tiled(weight, weight->place->tiles, (size_t)row, out);
    else take_raw(weight, (size_t)row, out);
}
