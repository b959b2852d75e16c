/* AVX-VNNI: vpdpbusd for processors without AVX-512. It adds four products of unsigned weights and signed activations to
 * each lane; what the weights' offset adds is in q8_block, as the value that a sum starts from. */
#include "ymm.h"

#if defined(SIS_EMULATED) /* a test on a processor that has the same instruction as part of AVX-512 only */
#define dpbusd _mm256_dpbusd_epi32
#else
#define dpbusd _mm256_dpbusd_avx_epi32
#endif

#define SIGNED_WEIGHTS 0
#include "kind_tiles.inc"

INLINE vc look_up(vc table, vc codes) { return (vc)_mm256_shuffle_epi8((__m256i)table, (__m256i)codes); }

INLINE void add_codes(const struct sis_kind kind, int last, int i, vi *sum, vi *some, vc w, int32_t x)
{
    (void)kind, (void)last, (void)i, (void)some;
    *sum = (vi)dpbusd((__m256i)*sum, (__m256i)w, _mm256_set1_epi32(x));
}

SIS_KINDS(KIND_TILE)

#define MANY sis_many_avx_vnni
#include "kind_many.inc"

#define TABLE sis_avx_vnni
#define ISA "avx_vnni"
#include "table.inc"
