/* Decodes rows of POT4: a linear takes them packed and calls this on the fly. Plain C types, no header of sis. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { VALUES = 32, BYTES = 18 };

static float from_bfloat16(const uint8_t *bytes) {
    const uint32_t bits = (uint32_t)bytes[0] << 16 | (uint32_t)bytes[1] << 24;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

void pot4_decode(const uint8_t *rows, size_t row_bytes, size_t n_rows, size_t n_cols, float *out) {
    static const float powers[16] = {1,  0.5f,  0.25f,  0.125f,  0.0625f,  0.03125f,  0.015625f,  0.0078125f,
                                     -1, -0.5f, -0.25f, -0.125f, -0.0625f, -0.03125f, -0.015625f, -0.0078125f};
    for (size_t row = 0; row < n_rows; row++, rows += row_bytes) {
        const uint8_t *block = rows;
        for (size_t column = 0; column < n_cols; column += VALUES, block += BYTES, out += VALUES) {
            const float scale = from_bfloat16(block);
            for (size_t i = 0; i < VALUES / 2; i++) {
                out[i] = scale * powers[block[2 + i] & 15];
                out[i + VALUES / 2] = scale * powers[block[2 + i] >> 4];
            }
        }
    }
}
