/* Single rows of a weight as floats: the embedding of tokens. */
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

void sis_take(const struct sis_weight *weight, const int32_t *rows, uint64_t n, float *out)
{
    size_t n_cols = weight->n_cols;
    for (uint64_t i = 0; i < n; i++, out += n_cols) {
        const uint8_t *row = weight->raw + (size_t)rows[i] * weight->row_bytes;
        switch (weight->format) {
        case SIS_F32: memcpy(out, row, n_cols * 4); break;
        case SIS_F16:
            for (size_t k = 0; k < n_cols; k++) out[k] = half_at(row + 2 * k);
            break;
        case SIS_BF16:
            for (size_t k = 0; k < n_cols; k++) {
                uint32_t bits = (uint32_t)row[2 * k] << 16 | (uint32_t)row[2 * k + 1] << 24;
                memcpy(out + k, &bits, 4);
            }
            break;
        case SIS_Q8_0: take_q8_0(row, n_cols, out); break;
        case SIS_Q4_0: take_q4_0(row, n_cols, out); break;
        case SIS_Q4_K: take_q4_k(row, n_cols, out); break;
        case SIS_Q6_K: take_q6_k(row, n_cols, out); break;
        case SIS_DECODED: weight->decode(row, weight->row_bytes, 1, n_cols, out); break;
        default: break;
        }
    }
}
