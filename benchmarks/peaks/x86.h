/* What an x86 processor has (CPUID) and what the system saves for it (XGETBV). */
#ifndef PEAK_X86_H
#define PEAK_X86_H

#include <cpuid.h>
#include <stdint.h>

enum { SAVES_YMM = 0x6, SAVES_ZMM = 0xe6, SAVES_TILES = 0x60000 };

struct features {
    uint32_t b, c, d; /* leaf 7 */
    uint32_t a1;      /* its second part */
    uint64_t saved;
};

static struct features find_features(void)
{
    struct features found = {0};
    uint32_t a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return found;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    found.saved = (uint64_t)high << 32 | low;
    if (__get_cpuid_count(7, 0, &a, &found.b, &found.c, &found.d) && a >= 1)
        __get_cpuid_count(7, 1, &found.a1, &b, &c, &d);
    return found;
}

static int saves(struct features found, uint64_t state) { return (found.saved & state) == state; }

#endif
