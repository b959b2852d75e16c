/* Decodes rows of POT4: a linear takes them packed and calls this on the fly. Plain C types, no header of sis. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { VALUES = 32, BYTES = 18 };

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* A sign and an exponent from 0 to -7 are bits of a float already, of its upper half: nothing is looked up, so compilers
 * use vectors. */
static float power(uint8_t code)
{
    const uint16_t upper = (uint16_t)((127 - (code & 7)) << 7 | (code & 8) << 12);
    return from_bits((uint32_t)upper << 16);
}

void pot4_decode(const uint8_t *rows, size_t row_bytes, size_t n_rows, size_t n_cols, float *restrict out)
{
    for (size_t row = 0; row < n_rows; row++, rows += row_bytes) {
        const uint8_t *block = rows;
        for (size_t column = 0; column < n_cols; column += VALUES, block += BYTES, out += VALUES) {
            const float scale = from_bits((uint32_t)block[0] << 16 | (uint32_t)block[1] << 24);
            for (size_t i = 0; i < VALUES / 2; i++) {
                out[i] = scale * power(block[2 + i] & 15);
            }
            for (size_t i = 0; i < VALUES / 2; i++) {
                out[i + VALUES / 2] = scale * power(block[2 + i] >> 4);
            }
        }
    }
}
