/* AVX-512 VNNI with BF16: attention over a BF16 cache takes two products a lane. */
#define V_HAS_DOT
#define TABLE sis_avx512_bf16
#define ISA "avx512_bf16"
#include "avx512_vnni.c"
