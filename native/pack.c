/* From GGUF's rows to tiles: sixteen rows side by side, so that one vector holds the same columns of all of them.
 *
 *   floats   [k][16]
 *   Q8_0     [k / 64] 2 x 16 half scales, 2 x 8 x 64 B: lane = row, byte = k, as signed
 *   Q4_0     [k / 64] 2 x 16 half scales, 2 x 4 x 64 B: vector i, lane = row, byte y: k = 8 i + y low, 8 i + 4 + y high
 *   Q4_K     [k / 256] 16 half d, 16 half dmin; 8 x (16 scales, 16 minima) of 8 bits; 8 x nibbles as in Q4_0
 *   Q6_K     [k / 256] 16 half d, 32 B unused; 16 x 16 scales of 8 bits; 8 x (nibbles as in Q4_0, then 2 x 64 B of the
 *            upper bits: vector j, lane = row, byte y: k = 16 j + 4 p + y in bits 2 p)
 *
 * A tile is one stream in the order in which it is read, so that what is fetched ahead is what comes next. Where the
 * number of blocks is odd, the last pair holds one. Rows past the end of the matrix are zero. The layout of the blocks themselves is ggml's. */
#include "kernels.h"
#include <string.h>

static const struct {
    uint32_t values, bytes, tile;
} FORMATS[] = {
    [SIS_F32] = {1, 4, 64},         [SIS_F16] = {1, 2, 32},           [SIS_BF16] = {1, 2, 32},
    [SIS_Q8_0] = {32, 34, 544},     [SIS_Q4_0] = {32, 18, 288},       [SIS_Q4_K] = {256, 144, 2368},
    [SIS_Q6_K] = {256, 210, 3392},  [SIS_DECODED] = {1, 0, 64},
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
    return (n_rows + TILE - 1) / TILE * sis_one_tile_bytes(format, n_cols);
}

static uint32_t word(const uint8_t *p)
{
    uint32_t w;
    memcpy(&w, p, 4);
    return w;
}

static void put(uint8_t *p, uint32_t w) { memcpy(p, &w, 4); }

/* Two quads of nibbles, each already in the low halves of its bytes, as one word. */
static uint32_t join(uint32_t low, uint32_t high) { return low | high << 4; }

enum { LOW = 0x0f0f0f0f };

static void pack_q8_0(const uint8_t *row, size_t n_blocks, uint32_t r, uint8_t *out)
{
    for (size_t b = 0; b < n_blocks; b++, row += 34) {
        uint8_t *pair = out + b / 2 * PAIR_Q8_0;
        memcpy(pair + b % 2 * 32 + r * 2, row, 2);
        for (int i = 0; i < 8; i++) put(pair + 64 + b % 2 * 512 + i * 64 + r * 4, word(row + 2 + i * 4));
    }
}

static void pack_q4_0(const uint8_t *row, size_t n_blocks, uint32_t r, uint8_t *out)
{
    for (size_t b = 0; b < n_blocks; b++, row += 18) {
        uint8_t *pair = out + b / 2 * PAIR_Q4_0, *o = pair + 64 + b % 2 * 256 + r * 4;
        memcpy(pair + b % 2 * 32 + r * 2, row, 2);
        uint32_t a = word(row + 2), c = word(row + 6), d = word(row + 10), e = word(row + 14);
        put(o, join(a & LOW, c & LOW));
        put(o + 64, join(d & LOW, e & LOW));
        put(o + 128, join(a >> 4 & LOW, c >> 4 & LOW));
        put(o + 192, join(d >> 4 & LOW, e >> 4 & LOW));
    }
}

static void scale_and_min(const uint8_t *s, int i, uint8_t *scale, uint8_t *min)
{
    if (i < 4) {
        *scale = s[i] & 63;
        *min = s[i + 4] & 63;
    } else {
        *scale = (uint8_t)((s[i + 4] & 15) | (s[i - 4] >> 6 << 4));
        *min = (uint8_t)(s[i + 4] >> 4 | (s[i] >> 6 << 4));
    }
}

static void pack_q4_k(const uint8_t *row, size_t n_blocks, uint32_t r, uint8_t *out)
{
    for (size_t b = 0; b < n_blocks; b++, row += 144, out += 2368) {
        memcpy(out + r * 2, row, 2);
        memcpy(out + 32 + r * 2, row + 2, 2);
        for (int s = 0; s < 8; s++) {
            scale_and_min(row + 4, s, out + 64 + s * 32 + r, out + 64 + s * 32 + 16 + r);
            const uint8_t *q = row + 16 + s / 2 * 32;
            int shift = s % 2 * 4;
            for (int i = 0; i < 4; i++)
                put(out + 320 + s * 256 + i * 64 + r * 4,
                    join(word(q + 8 * i) >> shift & LOW, word(q + 8 * i + 4) >> shift & LOW));
        }
    }
}

static void pack_q6_k(const uint8_t *row, size_t n_blocks, uint32_t r, uint8_t *out)
{
    for (size_t b = 0; b < n_blocks; b++, row += 210, out += 3392) {
        memcpy(out + r * 2, row + 208, 2);
        for (int i = 0; i < 16; i++) out[64 + i * 16 + r] = row[192 + i];
        for (int s = 0; s < 8; s++) {
            const uint8_t *low = row + s / 4 * 64 + s % 2 * 32, *high = row + 128 + s / 4 * 32;
            int shift = s % 4 / 2 * 4, up = s % 4 * 2;
            uint8_t *o = out + 320 + s * 384 + r * 4;
            for (int i = 0; i < 4; i++)
                put(o + i * 64, join(word(low + 8 * i) >> shift & LOW, word(low + 8 * i + 4) >> shift & LOW));
            for (int j = 0; j < 2; j++) {
                uint32_t bits = 0;
                for (int p = 0; p < 4; p++) bits |= (word(high + 16 * j + 4 * p) >> up & 0x03030303) << 2 * p;
                put(o + 256 + j * 64, bits);
            }
        }
    }
}

static void pack_wide(const uint8_t *row, size_t n, uint32_t r, uint8_t *out)
{
    for (size_t k = 0; k < n; k++) memcpy(out + (k * TILE + r) * 4, row + k * 4, 4);
}

static void pack_half(const uint8_t *row, size_t n, uint32_t r, uint8_t *out)
{
    for (size_t k = 0; k < n; k++) memcpy(out + (k * TILE + r) * 2, row + k * 2, 2);
}

/* Tile number `tile` of a weight whose `raw` is set. `scratch` holds n_cols floats, for SIS_DECODED. */
void sis_pack_tile(const struct sis_weight *weight, size_t tile, uint8_t *out, float *scratch)
{
    static void (*const PACK[])(const uint8_t *, size_t, uint32_t, uint8_t *) = {
        [SIS_F32] = pack_wide,  [SIS_F16] = pack_half,  [SIS_BF16] = pack_half,  [SIS_Q8_0] = pack_q8_0,
        [SIS_Q4_0] = pack_q4_0, [SIS_Q4_K] = pack_q4_k, [SIS_Q6_K] = pack_q6_k, [SIS_DECODED] = pack_wide,
    };
    size_t first = tile * TILE, n_blocks = weight->n_cols / FORMATS[weight->format].values;
    if (first + TILE > weight->n_rows || n_blocks % 2) memset(out, 0, sis_one_tile_bytes(weight->format, weight->n_cols));
    for (uint32_t r = 0; r < TILE && first + r < weight->n_rows; r++) {
        const uint8_t *row = weight->raw + (first + r) * weight->row_bytes;
        if (weight->format == SIS_DECODED) {
            weight->decode(row, weight->row_bytes, 1, weight->n_cols, scratch);
            row = (const uint8_t *)scratch;
        }
        PACK[weight->format](row, n_blocks, r, out);
    }
}
