/* The orthonormal Hadamard matrix in Sylvester's order, which is its own inverse. */
#ifndef SIS_HADAMARD_H
#define SIS_HADAMARD_H

#include <stddef.h>

/* Every n neighbours of x times the matrix, in log2(n) rounds of sums and differences: in the order, and so with the bits,
 * of `sis_core.transform.Hadamard`. n is a power of two that divides width. */
static inline void hadamard(float *x, size_t width, size_t n)
{
    if (n < 2) return;
    for (size_t half = 1; half < n; half *= 2)
        for (float *pair = x; pair < x + width; pair += 2 * half)
            for (size_t i = 0; i < half; i++) {
                const float a = pair[i], b = pair[i + half];
                pair[i] = a + b;
                pair[i + half] = a - b;
            }
    const float size = (float)(1.0 / __builtin_sqrt((double)n));
    for (size_t i = 0; i < width; i++) x[i] *= size;
}

#endif
