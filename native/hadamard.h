/* The orthonormal Hadamard matrix in Sylvester's order, which is its own inverse. */
#ifndef SIS_HADAMARD_H
#define SIS_HADAMARD_H

#include <stddef.h>
#include <stdint.h>

typedef float hadamard_row __attribute__((vector_size(64)));
typedef float hadamard_row_at __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t hadamard_signs __attribute__((vector_size(64)));

/* The first four rounds of sixteen neighbours: each becomes its partner plus or minus itself. */
static inline void hadamard_of_sixteen(float *x)
{
#define SIXTEEN(F) F(0), F(1), F(2), F(3), F(4), F(5), F(6), F(7), F(8), F(9), F(10), F(11), F(12), F(13), F(14), F(15)
#define PARTNER(I) (I) ^ half
#define SIGN(I) (I) & half ? INT32_MIN : 0
#define ROUND(HALF)                                                                                                    \
    {                                                                                                                  \
        enum { half = HALF };                                                                                          \
        const hadamard_signs signs = {SIXTEEN(SIGN)};                                                                  \
        v = __builtin_shufflevector(v, v, SIXTEEN(PARTNER)) + (hadamard_row)((hadamard_signs)v ^ signs);               \
    }
    hadamard_row v = *(const hadamard_row_at *)x;
    ROUND(1)
    ROUND(2)
    ROUND(4)
    ROUND(8)
    *(hadamard_row_at *)x = v;
#undef SIXTEEN
#undef PARTNER
#undef SIGN
#undef ROUND
}

/* Every n neighbours of x times the matrix, in log2(n) rounds of sums and differences: in the order, and so with the bits,
 * of `sis_core.transform.Hadamard`. n is a power of two that divides width. */
static inline void hadamard(float *x, size_t width, size_t n)
{
    if (n < 2) return;
    size_t half = 1;
    if (n >= 16) {
        for (float *some = x; some < x + width; some += 16) hadamard_of_sixteen(some);
        half = 16;
    }
    for (; half < n; half *= 2)
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
