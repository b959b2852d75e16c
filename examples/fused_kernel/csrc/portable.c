/* Plain C: loops over sixteen rows, which compilers turn into vectors. */
#include "quantize.inc"
#include <string.h>

/* IEEE 754 binary16; infinities and NaN come out as such. */
static float half(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = (uint32_t)(h & 0x7fff) << 13;
    uint32_t bits = rest;
    float f;
    memcpy(&f, &bits, 4);
    f *= 0x1p112f; /* moves the exponent's bias, also of denormals */
    memcpy(&bits, &f, 4);
    if ((h & 0x7c00) == 0x7c00) bits = rest | 0x7f800000;
    bits |= sign;
    memcpy(&f, &bits, 4);
    return f;
}

static void one(const uint8_t *tile, const struct activations *x, uint64_t n_blocks, float *y)
{
    memset(y, 0, TILE * sizeof *y);
    for (uint64_t b = 0; b < n_blocks; b++) {
        int32_t sums[TILE];
        for (int r = 0; r < TILE; r++) sums[r] = x[b].minus_8;
        for (int i = 0; i < 4; i++)
            for (int r = 0; r < TILE; r++)
                for (int k = 0; k < 4; k++) {
                    const uint8_t both = codes(tile, b, i)[r * 4 + k];
                    sums[r] += (both & 15) * x[b].q[8 * i + k] + (both >> 4) * x[b].q[8 * i + 4 + k];
                }
        for (int r = 0; r < TILE; r++) y[r] += (float)sums[r] * (half(scales(tile, n_blocks, b)[r]) * x[b].d);
    }
}

#define OF(M)                                                                                                          \
    static void of_##M(const uint8_t *tile, const struct activations *x, uint64_t stride, uint64_t n, float *y)        \
    {                                                                                                                  \
        for (int m = 0; m < M; m++) one(tile, x + m * stride, n, y + m * TILE);                                        \
    }
OF(1)
OF(2)
OF(4)
OF(8)

const struct isa int4_portable = {"portable", quantize, of_1, of_2, of_4, of_8, NULL};
