/* AVX-512 F, BW, VL and VNNI. vpdpbusd adds four products of unsigned weights and signed activations to each lane; what
 * the weights' offset adds is in q8_block, as the value that a sum starts from. */
#include "zmm.h"
#define PAIR_NAME(NAME) sis_avx512_##NAME##_pair
#include "over_vec.inc"
#ifdef V_HAS_BFLOATS
#include "bfloat_tiles.h"
#endif

/* The tile functions are compiled once, for both sets. */
#define KIND_FUNCTION(NAME) void sis_avx512_##NAME
#define TILE_NAME(NAME) sis_avx512_##NAME
#define DECLARE(NAME, FORMAT, BITS, CODES, GROUP, SCALES)                                                              \
    KIND_FUNCTION(NAME)(const uint8_t *w, const void *x, uint32_t m, size_t k, float *y);                              \
    KIND_FUNCTION(NAME##_pair)(const uint8_t *const tiles[2], const void *x, uint32_t m, size_t k, float *const y[2]);
#include "kinds.h"
SIS_KINDS(DECLARE)

/* For more rows of floats there are too few registers, and with fewer than three bits a weight it is not memory that such rows
 * wait for. */
static uint32_t pair_rows(uint32_t format, size_t tile_bytes, size_t k)
{
    return format <= SIS_BF16 || 8 * tile_bytes < 3 * k * TILE ? 4 : 8;
}

#ifndef TABLE
#define SIGNED_WEIGHTS 0
#include "kind_tiles.inc"

INLINE vc look_up(vc table, vc codes) { return (vc)_mm512_shuffle_epi8((__m512i)table, (__m512i)codes); }

INLINE void add_codes(const struct sis_kind kind, int last, int i, vi *sum, vi *some, vc w, int32_t x)
{
    (void)kind, (void)last, (void)i, (void)some;
    *sum = (vi)_mm512_dpbusd_epi32((__m512i)*sum, (__m512i)w, _mm512_set1_epi32(x));
}

SIS_KINDS(KIND_TILE)
SIS_KINDS(KIND_PAIR)

#define MANY sis_many_avx512
#include "kind_many.inc"

#define TABLE sis_avx512_vnni
#define ISA "avx512_vnni"
#endif
#include "table.inc"
