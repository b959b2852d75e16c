/* Chooses the instruction set by feature bits alone: what the processor has (CPUID) and what the system saves (XGETBV).
 * SIS_ISA forces a lower rung; a higher one than the machine has is not possible. */
#include "kernels.h"
#include <cpuid.h>
#include <stdlib.h>
#include <string.h>

extern const struct kernels sis_portable, sis_avx2, sis_avx512_vnni;

enum { PORTABLE, AVX2, AVX512_VNNI, N_RUNGS };
static const struct kernels *const RUNGS[] = {&sis_portable, &sis_avx2, &sis_avx512_vnni};

static const struct kernels *chosen;
static const char *note = "";

static uint64_t saved_by_system(void)
{
    uint32_t a, d;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return (uint64_t)d << 32 | a;
}

static int best(void)
{
    enum { YMM = 0x6, ZMM = 0xe6 };
    uint32_t a, b, c, d, b7, c7;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE) || !(c & bit_AVX)) return PORTABLE;
    uint64_t saved = saved_by_system();
    int fma = (c & bit_FMA) && (c & bit_F16C);
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d)) return PORTABLE;
    /* The compiler's x86_64_v3 also takes these for granted. */
    uint32_t e = 0, f = 0;
    int lzcnt = __get_cpuid(0x80000001, &a, &e, &f, &d) && (f & bit_LZCNT);
    if (!fma || !lzcnt || (saved & YMM) != YMM || !(b7 & bit_AVX2) || !(b7 & bit_BMI) || !(b7 & bit_BMI2) || !(c & bit_MOVBE))
        return PORTABLE;
    const uint32_t wide = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ | bit_AVX512CD;
    if ((saved & ZMM) != ZMM || (b7 & wide) != wide || !(c7 & bit_AVX512VNNI)) return AVX2;
    return AVX512_VNNI;
}

/* Runs when the library is loaded, before any thread can ask. */
__attribute__((constructor)) static void choose(void)
{
    int rung = best();
    const char *wanted = getenv("SIS_ISA");
    chosen = RUNGS[rung];
    if (!wanted || !*wanted) return;
    for (int i = 0; i < N_RUNGS; i++)
        if (!strcmp(RUNGS[i]->isa, wanted)) {
            if (i > rung) note = "SIS_ISA names instructions that this machine does not have";
            else {
                chosen = RUNGS[i];
                note = "chosen by SIS_ISA";
            }
            return;
        }
    note = "SIS_ISA is not one of portable, avx2, avx512_vnni";
}

const struct kernels *sis_kernels(void) { return chosen; }

const char *sis_isa_note(void) { return note; }
