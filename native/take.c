/* Single rows of a weight as floats: the embedding of tokens. From raw rows, or from the tiles that a head shares. */
#include "kernels.h"
#include <string.h>
#define VL 4
#include "vec.h"

static float half_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, 2);
    return half_to_float(h);
}

static void take_q8_0(const uint8_t *row, size_t n, float *out)
{
    for (size_t b = 0; b < n; b += 32, row += 34) {
        float d = half_at(row);
        for (int i = 0; i < 32; i++) out[b + i] = d * (float)(int8_t)row[2 + i];
    }
}

static void take_q4_0(const uint8_t *row, size_t n, float *out)
{
    for (size_t b = 0; b < n; b += 32, row += 18) {
        float d = half_at(row);
        for (int i = 0; i < 16; i++) {
            out[b + i] = d * (float)((row[2 + i] & 15) - 8);
            out[b + 16 + i] = d * (float)((row[2 + i] >> 4) - 8);
        }
    }
}

static void take_q4_k(const uint8_t *row, size_t n, float *out)
{
    for (size_t b = 0; b < n; b += 256, row += 144) {
        float d = half_at(row), dmin = half_at(row + 2);
        const uint8_t *s = row + 4;
        for (int i = 0; i < 8; i++) {
            int scale = i < 4 ? s[i] & 63 : (s[i + 4] & 15) | s[i - 4] >> 6 << 4;
            int min = i < 4 ? s[i + 4] & 63 : s[i + 4] >> 4 | s[i] >> 6 << 4;
            float ds = d * (float)scale, m = dmin * (float)min;
            for (int k = 0; k < 32; k++)
                out[b + i * 32 + k] = ds * (float)(row[16 + i / 2 * 32 + k] >> i % 2 * 4 & 15) - m;
        }
    }
}

static void take_q6_k(const uint8_t *row, size_t n, float *out)
{
    for (size_t b = 0; b < n; b += 256, row += 210) {
        float d = half_at(row + 208);
        for (int s = 0; s < 8; s++)
            for (int k = 0; k < 32; k++) {
                int low = row[s / 4 * 64 + s % 2 * 32 + k] >> s % 4 / 2 * 4 & 15;
                int high = row[128 + s / 4 * 32 + k] >> s % 4 * 2 & 3;
                float ds = d * (float)(int8_t)row[192 + s * 2 + k / 16];
                out[b + s * 32 + k] = ds * (float)((low | high << 4) - 32);
            }
    }
}

/* Row r of a tile of sixteen, in the layouts of pack.inc: lane r of each vector. */

static int nibble(const uint8_t *q, size_t k, uint32_t r)
{
    return q[k / 8 * 64 + r * 4 + k % 4] >> k % 8 / 4 * 4 & 15;
}

static void take_tiled_q8_0(const uint8_t *tile, uint32_t r, size_t n, float *out)
{
    for (size_t b = 0; b < n / 32; b++) {
        const uint8_t *pair = tile + b / 2 * PAIR_Q8_0, *q = pair + 64 + b % 2 * 512 + r * 4;
        float d = half_at(pair + b % 2 * 32 + r * 2);
        for (int i = 0; i < 32; i++) out[b * 32 + i] = d * (float)(int8_t)q[i / 4 * 64 + i % 4];
    }
}

static void take_tiled_q4_0(const uint8_t *tile, uint32_t r, size_t n, float *out)
{
    for (size_t b = 0; b < n / 32; b++) {
        const uint8_t *pair = tile + b / 2 * PAIR_Q4_0;
        float d = half_at(pair + b % 2 * 32 + r * 2);
        for (size_t i = 0; i < 32; i++) out[b * 32 + i] = d * (float)(nibble(pair + 64 + b % 2 * 256, i, r) - 8);
    }
}

static void take_tiled_q4_k(const uint8_t *tile, uint32_t r, size_t n, float *out)
{
    for (size_t b = 0; b < n; b += 256, tile += 2368) {
        float d = half_at(tile + r * 2), dmin = half_at(tile + 32 + r * 2);
        for (int i = 0; i < 8; i++) {
            const uint8_t *scale = tile + 64 + i * 32 + r;
            float ds = d * (float)scale[0], m = dmin * (float)scale[16];
            for (size_t k = 0; k < 32; k++) out[b + i * 32 + k] = ds * (float)nibble(tile + 320 + i * 256, k, r) - m;
        }
    }
}

static void take_tiled_q6_k(const uint8_t *tile, uint32_t r, size_t n, float *out)
{
    for (size_t b = 0; b < n; b += 256, tile += 3392) {
        float d = half_at(tile + r * 2);
        for (int s = 0; s < 8; s++) {
            const uint8_t *q = tile + 320 + s * 384;
            for (size_t k = 0; k < 32; k++) {
                int high = q[256 + k / 16 * 64 + r * 4 + k % 4] >> k % 16 / 4 * 2 & 3;
                float ds = d * (float)(int8_t)tile[64 + (s * 2 + k / 16) * 16 + r];
                out[b + s * 32 + k] = ds * (float)((nibble(q, k, r) | high << 4) - 32);
            }
        }
    }
}

static float bfloat_at(const uint8_t *p)
{
    uint32_t bits = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 24;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

/* Values `step` bytes apart: neighbours in a row, sixteen lanes apart in a tile. */
static void take_single(uint32_t format, const uint8_t *p, size_t step, size_t n, float *out)
{
    for (size_t k = 0; k < n; k++, p += step)
        if (format == SIS_F32) memcpy(out + k, p, 4);
        else out[k] = format == SIS_F16 ? half_at(p) : bfloat_at(p);
}

static void take_raw(const struct sis_weight *weight, size_t row, float *out)
{
    const uint8_t *p = weight->raw + row * weight->row_bytes;
    size_t n = weight->n_cols;
    switch (weight->format) {
    case SIS_F32:
    case SIS_F16:
    case SIS_BF16: take_single(weight->format, p, weight->format == SIS_F32 ? 4 : 2, n, out); break;
    case SIS_Q8_0: take_q8_0(p, n, out); break;
    case SIS_Q4_0: take_q4_0(p, n, out); break;
    case SIS_Q4_K: take_q4_k(p, n, out); break;
    case SIS_Q6_K: take_q6_k(p, n, out); break;
    case SIS_DECODED: weight->decode(p, weight->row_bytes, 1, n, out); break;
    default: break;
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
    case SIS_Q8_0: take_tiled_q8_0(tile, r, n, out); break;
    case SIS_Q4_0: take_tiled_q4_0(tile, r, n, out); break;
    case SIS_Q4_K: take_tiled_q4_k(tile, r, n, out); break;
    case SIS_Q6_K: take_tiled_q6_k(tile, r, n, out); break;
    default: break;
    }
}

void sis_take_row(const struct sis_weight *weight, int32_t row, float *out)
{
    if (weight->tiles) take_tiled(weight, (size_t)row, out);
    else take_raw(weight, (size_t)row, out);
}
