/* Plain C for any machine, and what the other sets are compared with. */
#define VL 4
#include "vec.h"

INLINE void quantize_block(const float *x, float inverse, int8_t *q, int32_t sums[2])
{
    for (int h = 0; h < 2; h++) {
        sums[h] = 0;
        for (int i = h * 16; i < h * 16 + 16; i++) {
            float v = x[i] * inverse; /* 12582912 = 1.5 * 2^23 rounds to the nearest even integer */
            float r = (v < 127.0f ? v > -127.0f ? v : -127.0f : v == v ? 127.0f : 0.0f) + 12582912.0f - 12582912.0f;
            q[i] = (int8_t)r;
            sums[h] += q[i];
        }
    }
}

#include "over_vec.inc"
#include "portable_tiles.inc"
#define TABLE sis_portable
#define ISA "portable"
#include "table.inc"
