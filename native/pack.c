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
 * number of blocks is odd, the last pair holds one. Rows past the end of the matrix are zero. The layout of the blocks
 * themselves is ggml's.
 *
 * Sixteen rows are packed at once, with the compiler's own vectors: four words of each row are transposed, and what is
 * then done to nibbles is done to one word of all sixteen. */
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
    if (format == SIS_DECODED) return 0; /* its tiles live in the scratch of a thread */
    return (n_rows + TILE - 1) / TILE * sis_one_tile_bytes(format, n_cols);
}

enum { LOW = 0x0f0f0f0f };
#define HIGH 0xf0f0f0f0

#define INLINE static inline __attribute__((always_inline))

typedef uint32_t word4 __attribute__((vector_size(16)));
typedef uint16_t half8 __attribute__((vector_size(16)));
typedef uint8_t byte4 __attribute__((vector_size(4)));

/* Up to sixteen rows of a matrix; those past its end read as zero. */
struct rows {
    const uint8_t *first;
    size_t stride;
    uint32_t n;
};

/* One word of each of the sixteen rows. */
typedef struct {
    word4 of[4];
} lanes;

INLINE word4 load(struct rows rows, uint32_t r, size_t at)
{
    word4 v = {0};
    if (r < rows.n) memcpy(&v, rows.first + r * rows.stride + at, sizeof v);
    return v;
}

/* Sixteen bytes of each row, from `at` on, as four words: a transposition is two perfect shuffles of the rows. */
INLINE void words(struct rows rows, size_t at, lanes out[4])
{
    for (uint32_t g = 0; g < 4; g++) {
        word4 v[4], t[4];
        for (uint32_t r = 0; r < 4; r++) v[r] = load(rows, g * 4 + r, at);
        for (int i = 0; i < 2; i++) {
            t[2 * i] = __builtin_shufflevector(v[i], v[i + 2], 0, 4, 1, 5);
            t[2 * i + 1] = __builtin_shufflevector(v[i], v[i + 2], 2, 6, 3, 7);
        }
        for (int i = 0; i < 2; i++) {
            out[2 * i].of[g] = __builtin_shufflevector(t[i], t[i + 2], 0, 4, 1, 5);
            out[2 * i + 1].of[g] = __builtin_shufflevector(t[i], t[i + 2], 2, 6, 3, 7);
        }
    }
}

INLINE void put(uint8_t *out, lanes v) { memcpy(out, &v, sizeof v); }

/* Two quads of nibbles as one: the low nibbles of both, or the high ones. */
INLINE void put_low(uint8_t *out, lanes a, lanes b)
{
    for (int g = 0; g < 4; g++) a.of[g] = (a.of[g] & LOW) | (b.of[g] & LOW) << 4;
    put(out, a);
}

INLINE void put_high(uint8_t *out, lanes a, lanes b)
{
    for (int g = 0; g < 4; g++) a.of[g] = (a.of[g] >> 4 & LOW) | (b.of[g] & HIGH);
    put(out, a);
}

/* The four bytes of each word: sixteen of the first, `stride` further sixteen of the second, and so on. */
INLINE void put_bytes(uint8_t *out, size_t stride, lanes v)
{
    for (int i = 0; i < 4; i++)
        for (int g = 0; g < 4; g++) {
            byte4 bytes = __builtin_convertvector(v.of[g] >> 8 * i & 0xff, byte4);
            memcpy(out + i * stride + g * 4, &bytes, 4);
        }
}

INLINE void put_halves(uint8_t *out, struct rows rows, size_t at)
{
    uint16_t halves[TILE] = {0};
    for (uint32_t r = 0; r < rows.n; r++) memcpy(&halves[r], rows.first + r * rows.stride + at, 2);
    memcpy(out, halves, sizeof halves);
}

INLINE void pack_q8_0(struct rows rows, size_t n_blocks, uint8_t *out)
{
    for (size_t b = 0; b < n_blocks; b++) {
        uint8_t *pair = out + b / 2 * PAIR_Q8_0, *q = pair + 64 + b % 2 * 512;
        put_halves(pair + b % 2 * 32, rows, b * 34);
        for (int i = 0; i < 2; i++) {
            lanes w[4];
            words(rows, b * 34 + 2 + i * 16, w);
            for (int j = 0; j < 4; j++) put(q + i * 256 + j * 64, w[j]);
        }
    }
}

INLINE void pack_q4_0(struct rows rows, size_t n_blocks, uint8_t *out)
{
    for (size_t b = 0; b < n_blocks; b++) {
        uint8_t *pair = out + b / 2 * PAIR_Q4_0, *q = pair + 64 + b % 2 * 256;
        lanes w[4];
        put_halves(pair + b % 2 * 32, rows, b * 18);
        words(rows, b * 18 + 2, w);
        put_low(q, w[0], w[1]);
        put_low(q + 64, w[2], w[3]);
        put_high(q + 128, w[0], w[1]);
        put_high(q + 192, w[2], w[3]);
    }
}

/* Eight scales and minima of six bits in twelve bytes. */
INLINE void put_scales(uint8_t *out, struct rows rows, size_t at)
{
    lanes w[4], scales[2], minima[2];
    words(rows, at, w);
    for (int g = 0; g < 4; g++) {
        word4 a = w[0].of[g], b = w[1].of[g], c = w[2].of[g];
        scales[0].of[g] = a & 0x3f3f3f3f;
        minima[0].of[g] = b & 0x3f3f3f3f;
        scales[1].of[g] = (c & LOW) | (a >> 2 & 0x30303030);
        minima[1].of[g] = (c >> 4 & LOW) | (b >> 2 & 0x30303030);
    }
    for (int i = 0; i < 2; i++) {
        put_bytes(out + i * 128, 32, scales[i]);
        put_bytes(out + i * 128 + 16, 32, minima[i]);
    }
}

INLINE void pack_q4_k(struct rows rows, size_t n_blocks, uint8_t *out)
{
    for (size_t b = 0; b < n_blocks; b++, out += 2368) {
        put_halves(out, rows, b * 144);
        put_halves(out + 32, rows, b * 144 + 2);
        put_scales(out + 64, rows, b * 144 + 4);
        for (int i = 0; i < 8; i++) {
            uint8_t *q = out + 320 + i / 2 * 512 + i % 2 * 128;
            lanes w[4];
            words(rows, b * 144 + 16 + i * 16, w);
            for (int j = 0; j < 2; j++) {
                put_low(q + j * 64, w[2 * j], w[2 * j + 1]);
                put_high(q + 256 + j * 64, w[2 * j], w[2 * j + 1]);
            }
        }
    }
}

/* Two bits of each of four words' bytes, from bit `up` on, side by side. */
INLINE void put_upper(uint8_t *out, const lanes w[4], int up)
{
    lanes bits;
    for (int g = 0; g < 4; g++) {
        bits.of[g] = w[0].of[g] >> up & 0x03030303;
        for (int p = 1; p < 4; p++) bits.of[g] |= (w[p].of[g] >> up & 0x03030303) << 2 * p;
    }
    put(out, bits);
}

INLINE void pack_q6_k(struct rows rows, size_t n_blocks, uint8_t *out)
{
    for (size_t b = 0; b < n_blocks; b++, out += 3392) {
        size_t at = b * 210;
        lanes w[4];
        put_halves(out, rows, at + 208);
        words(rows, at + 192, w);
        for (int i = 0; i < 4; i++) put_bytes(out + 64 + i * 64, 16, w[i]);
        for (int i = 0; i < 8; i++) { /* the low nibbles, and those of two blocks further on */
            uint8_t *q = out + 320 + (i / 4 * 4 + i / 2 % 2) * 384 + i % 2 * 128;
            words(rows, at + i * 16, w);
            for (int j = 0; j < 2; j++) {
                put_low(q + j * 64, w[2 * j], w[2 * j + 1]);
                put_high(q + 768 + j * 64, w[2 * j], w[2 * j + 1]);
            }
        }
        for (int i = 0; i < 4; i++) {
            words(rows, at + 128 + i * 16, w);
            for (int s = 0; s < 4; s++) put_upper(out + 320 + (i / 2 * 4 + s) * 384 + 256 + i % 2 * 64, w, s * 2);
        }
    }
}

/* What is left of rows of single values. */
INLINE void put_rest(uint8_t *out, struct rows rows, size_t k, size_t n, size_t size)
{
    for (; k < n; k++)
        for (uint32_t r = 0; r < rows.n; r++)
            memcpy(out + (k * TILE + r) * size, rows.first + r * rows.stride + k * size, size);
}

INLINE void pack_wide(struct rows rows, size_t n, uint8_t *out)
{
    size_t k = 0;
    for (; k + 4 <= n; k += 4) {
        lanes w[4];
        words(rows, k * 4, w);
        for (int i = 0; i < 4; i++) put(out + (k + i) * 64, w[i]);
    }
    put_rest(out, rows, k, n, 4);
}

INLINE void pack_half(struct rows rows, size_t n, uint8_t *out)
{
    size_t k = 0;
    for (; k + 8 <= n; k += 8)
        for (uint32_t g = 0; g < 2; g++) {
            half8 v[8], t[8];
            for (uint32_t r = 0; r < 8; r++) v[r] = (half8)load(rows, g * 8 + r, k * 2);
            for (int pass = 0; pass < 3; pass++) {
                for (int i = 0; i < 4; i++) {
                    t[2 * i] = __builtin_shufflevector(v[i], v[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
                    t[2 * i + 1] = __builtin_shufflevector(v[i], v[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
                }
                memcpy(v, t, sizeof v);
            }
            for (int i = 0; i < 8; i++) memcpy(out + (k + i) * 32 + g * 16, &v[i], 16);
        }
    put_rest(out, rows, k, n, 2);
}

/* Inlined twice, so that whole tiles are packed without looking where the matrix ends. */
INLINE void pack(uint32_t format, struct rows rows, size_t n_blocks, uint8_t *out)
{
    switch (format) {
    case SIS_F32:
    case SIS_DECODED: pack_wide(rows, n_blocks, out); break;
    case SIS_F16:
    case SIS_BF16: pack_half(rows, n_blocks, out); break;
    case SIS_Q8_0: pack_q8_0(rows, n_blocks, out); break;
    case SIS_Q4_0: pack_q4_0(rows, n_blocks, out); break;
    case SIS_Q4_K: pack_q4_k(rows, n_blocks, out); break;
    case SIS_Q6_K: pack_q6_k(rows, n_blocks, out); break;
    default: break;
    }
}

/* Tile number `tile` of a weight whose `raw` is set. `scratch` holds TILE rows of floats, for SIS_DECODED. */
void sis_pack_tile(const struct sis_weight *weight, size_t tile, uint8_t *out, float *scratch)
{
    size_t first = tile * TILE, left = weight->n_rows - first, n_cols = weight->n_cols;
    size_t n_blocks = n_cols / FORMATS[weight->format].values, bytes = sis_one_tile_bytes(weight->format, n_cols);
    uint32_t n = left < TILE ? (uint32_t)left : TILE;
    struct rows rows = {weight->raw + first * weight->row_bytes, weight->row_bytes, n};
    if (weight->format == SIS_DECODED) {
        weight->decode(rows.first, rows.stride, n, n_cols, scratch);
        rows = (struct rows){(const uint8_t *)scratch, n_cols * sizeof *scratch, n};
    }
    if (n < TILE || n_blocks % 2) memset(out, 0, bytes);
    if (n == TILE) pack(weight->format, (struct rows){rows.first, rows.stride, TILE}, n_blocks, out);
    else pack(weight->format, rows, n_blocks, out);
}
