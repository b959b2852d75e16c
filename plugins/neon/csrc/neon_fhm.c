/* NEON with sdot and fmlal (FEAT_FHM): products of halves added in 32 bits. Many rows are multiplied as without it. */
#define V_HAS_HALVES
#include "neon_vec.h"
#include "over_vec.inc"
#include "halves.inc"
#include "kinds.h"
#include "sdot.inc"

#define TABLE sis_neon_fhm
#define ISA "neon_fhm"
#include "table.inc"
