/* From sums of weights times rows to a linear's results: with its bias, and with what lies there. */
#ifndef SIS_RESULTS_H
#define SIS_RESULTS_H

#include "kernels.h"

static inline __attribute__((always_inline)) void sis_write_some(float *restrict y, const float *restrict sums,
                                                                 const float *restrict bias, int add, size_t n)
{
    if (bias && add)
        for (size_t i = 0; i < n; i++) y[i] += sums[i] + bias[i];
    else if (bias)
        for (size_t i = 0; i < n; i++) y[i] = sums[i] + bias[i];
    else if (add)
        for (size_t i = 0; i < n; i++) y[i] += sums[i];
    else
        for (size_t i = 0; i < n; i++) y[i] = sums[i];
}

/* n results, from y on, of each of m rows, which lie `stride` apart. The sums of a tile are [m][TILE], and `apart` floats
 * from those of one tile to those of the next; the last may have fewer rows of weights. */
static inline void sis_write_results(float *y, size_t stride, uint32_t m, size_t n, const float *sums, size_t apart,
                                     const float *bias, int add)
{
    for (uint32_t row = 0; row < m; row++, y += stride, sums += TILE)
        for (size_t i = 0; i < n; i += TILE) {
            const float *its_sums = sums + i / TILE * apart, *its_bias = bias ? bias + i : NULL;
            if (n - i >= TILE) sis_write_some(y + i, its_sums, its_bias, add, TILE);
            else sis_write_some(y + i, its_sums, its_bias, add, n - i);
        }
}

#endif
