/* What stands beside AMX for few rows: as avx512_bf16, but BF16 weights meet activations as they are, since those of many
 * rows are split there and not rounded. */
#define V_HAS_DOT
#define TABLE sis_avx512_split
#define ISA "avx512_bf16"
#include "avx512_vnni.c"
