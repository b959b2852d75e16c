/* Four vectors of words, transposed within each lane of sixteen bytes: the first words of all four, then the second, and so
 * on. Two rounds of perfect shuffles; for vectors of eight words and of sixteen. */
#ifndef SIS_TRANSPOSE_H
#define SIS_TRANSPOSE_H

#include <stdint.h>

typedef uint32_t words_8 __attribute__((vector_size(32)));
typedef uint32_t words_16 __attribute__((vector_size(64)));

#define EVEN_8(A, B) __builtin_shufflevector(A, B, 0, 8, 1, 9, 4, 12, 5, 13)
#define ODD_8(A, B) __builtin_shufflevector(A, B, 2, 10, 3, 11, 6, 14, 7, 15)
#define EVEN_16(A, B) __builtin_shufflevector(A, B, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29)
#define ODD_16(A, B) __builtin_shufflevector(A, B, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31)

#define SIS_TRANSPOSE(N)                                                                                               \
    static inline __attribute__((always_inline)) void transpose_##N(words_##N v[4])                                    \
    {                                                                                                                  \
        const words_##N a = EVEN_##N(v[0], v[2]), b = ODD_##N(v[0], v[2]);                                             \
        const words_##N c = EVEN_##N(v[1], v[3]), d = ODD_##N(v[1], v[3]);                                             \
        v[0] = EVEN_##N(a, c);                                                                                         \
        v[1] = ODD_##N(a, c);                                                                                          \
        v[2] = EVEN_##N(b, d);                                                                                         \
        v[3] = ODD_##N(b, d);                                                                                          \
    }
SIS_TRANSPOSE(8)
SIS_TRANSPOSE(16)

#endif
