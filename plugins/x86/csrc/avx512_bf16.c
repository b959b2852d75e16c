/* AVX-512 VNNI with BF16: attention over a BF16 cache takes two products a lane, and so do BF16 weights. */
#define V_HAS_DOT
#define V_HAS_BFLOATS
#define TABLE sis_avx512_bf16
#define ISA "avx512_bf16"
#include "avx512_vnni.c"
