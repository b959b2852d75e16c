/* The instruction sets of x86-64 and the features that they need: what the processor has (CPUID), what the system saves
 * (XGETBV) and, for AMX, whether it lets this process use tiles. */
#if defined(__linux__)
#define _GNU_SOURCE /* syscall */
#include <sys/syscall.h>
#include <unistd.h>
#endif
#include "rungs.h"
#include <cpuid.h>
#include <stdlib.h>
#include <string.h>

extern const struct kernels sis_avx2, sis_avx_vnni, sis_avx512_vnni, sis_avx512_bf16, sis_avx512_split;
extern const struct many_rows sis_many_avx2, sis_many_avx_vnni, sis_many_avx512, sis_many_amx;

/* Each stands for all instructions that units of that name are compiled with, and for the registers they need. */
enum feature { AVX2 = 1, AVX_VNNI = 2, AVX512_VNNI = 4, AVX512_BF16 = 8, AMX = 16 };

const struct rung sis_rungs[] = {
    {"portable", 0, &sis_portable, NULL},
    {"avx2", AVX2, &sis_avx2, &sis_many_avx2},
    {"avx_vnni", AVX2 | AVX_VNNI, &sis_avx_vnni, &sis_many_avx_vnni},
    {"avx512_vnni", AVX2 | AVX512_VNNI, &sis_avx512_vnni, &sis_many_avx512},
    {"avx512_bf16", AVX2 | AVX512_VNNI | AVX512_BF16, &sis_avx512_bf16, &sis_many_avx512},
    {"amx", AVX2 | AVX512_VNNI | AVX512_BF16 | AMX, &sis_avx512_split, &sis_many_amx},
    {NULL, 0, NULL, NULL},
};
const char sis_not_a_rung[] = "SIS_ISA is not one of portable, avx2, avx_vnni, avx512_vnni, avx512_bf16, amx";

static uint64_t saved_by_system(void)
{
    uint32_t a, d;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return (uint64_t)d << 32 | a;
}

static uint32_t features_of_machine(void)
{
    enum {
        YMM = 0x6,
        ZMM = 0xe6,
        TILES = 0x60000,
        VNNI_BIT = 1 << 4,
        BF16_BIT = 1 << 5,
        AMX_BF16 = 1 << 22,
        AMX_TILE = 1 << 24,
        AMX_INT8 = 1 << 25,
        GFNI = 1 << 8,
    };
    uint32_t a, b, c, d, b7, c7, d7, a71 = 0, found = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_AVX)) return 0;
    uint64_t saved = saved_by_system();
    int fma = (c & bit_FMA) && (c & bit_F16C), movbe = (c & bit_MOVBE) != 0;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7)) return 0;
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) a71 = a;
    /* The compiler's x86_64_v3 also takes these for granted. */
    uint32_t e = 0, f = 0;
    int lzcnt = __get_cpuid(0x80000001, &a, &e, &f, &d) && (f & bit_LZCNT);
    const uint32_t v3 = bit_AVX2 | bit_BMI | bit_BMI2;
    if (!fma || !lzcnt || !movbe || (saved & YMM) != YMM || (b7 & v3) != v3) return 0;
    found |= AVX2;
    if (a71 & VNNI_BIT) found |= AVX_VNNI;
    const uint32_t wide = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ | bit_AVX512CD;
    if ((saved & ZMM) != ZMM || (b7 & wide) != wide || !(c7 & bit_AVX512VNNI)) return found;
    found |= AVX512_VNNI;
    if (a71 & BF16_BIT) found |= AVX512_BF16;
    const uint32_t tiles = AMX_TILE | AMX_BF16 | AMX_INT8;
    if ((saved & TILES) == TILES && (d7 & tiles) == tiles && (c7 & GFNI)) found |= AMX;
    return found;
}

#if defined(SIS_EMULATED)
/* A test names which of the machine's and the emulated features are there, and whether tiles may be used. */
static int is_named(const char *feature)
{
    const char *names = getenv("SIS_TEST_FEATURES");
    return !names || strstr(names, feature);
}

uint32_t sis_features(void)
{
    static const char *const NAMES[] = {"avx2", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx"};
    uint32_t found = features_of_machine() | AMX;
    if (found & AVX512_VNNI) found |= AVX_VNNI;
    for (unsigned i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        if (!is_named(NAMES[i])) found &= ~(1u << i);
    return found;
}

static int may_use_tiles(void) { return is_named("permission"); }
#else
uint32_t sis_features(void) { return features_of_machine(); }

/* Tiles are a large state: Linux lets a process use them once it has asked, and all threads that it begins later. */
static int may_use_tiles(void)
{
#if defined(__linux__)
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return !syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA);
#else
    return 0;
#endif
}
#endif

/* A Zen 4 reads a third slower with 1 KB and more than with 256, since its own prefetcher is better; a Sapphire Rapids, one
 * of those with tiles, up to a third faster with 2 KB. */
uint32_t sis_far_of(uint32_t features) { return features & AMX ? 2048 : 256; }

const char *sis_refusal(uint32_t needs)
{
    return !(needs & AMX) || may_use_tiles() ? NULL : "the system does not let this process use the tiles of AMX";
}
