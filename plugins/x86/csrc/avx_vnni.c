/* AVX-VNNI: vpdpbusd for processors without AVX-512. It adds four products of unsigned weights and signed activations to
 * each lane; what the weights' offset adds is in q8_block, as the value that a sum starts from. */
#include "ymm.h"

#if defined(SIS_EMULATED) /* a test on a processor that has the same instruction as part of AVX-512 only */
#define dpbusd _mm256_dpbusd_epi32
#else
#define dpbusd _mm256_dpbusd_avx_epi32
#endif

INLINE __m256i start(int32_t offset) { return _mm256_set1_epi32(offset); }
INLINE __m256i add(__m256i d, __m256i w, __m256i x) { return dpbusd(d, w, x); }
INLINE __m256i end(__m256i d, int32_t offset)
{
    (void)offset;
    return d;
}
INLINE __m256i add_two(__m256i d, __m256i a, __m256i x, __m256i b, __m256i y) { return dpbusd(dpbusd(d, a, x), b, y); }
INLINE __m256i start_signed(const struct q8_block *x) { return _mm256_set1_epi32(x->minus_128); }
INLINE __m256i add_signed(__m256i d, __m256i w, __m256i x)
{
    return dpbusd(d, _mm256_xor_si256(w, _mm256_set1_epi8((char)0x80)), x);
}

#include "ymm_tiles.inc"
#define TABLE sis_avx_vnni
#define ISA "avx_vnni"
#include "table.inc"
