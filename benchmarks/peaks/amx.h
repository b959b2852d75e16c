/* Tile registers: whether there are any, whether the system lets us use them, and loading four of them. */
#ifndef PEAK_AMX_H
#define PEAK_AMX_H

#include "x86.h"
#include <stddef.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25 }; /* leaf 7, EDX */

static const char *amx_absent(uint32_t wanted)
{
    struct features found = find_features();
    wanted |= AMX_TILE;
    if ((found.d & wanted) != wanted) return "this processor has no such AMX unit";
#if defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    if (!saves(found, SAVES_TILES)) return "the system does not save AMX registers";
    if (syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA)) return "the system grants no permission for AMX";
    return 0;
#else
    return "permission for AMX can be asked for on Linux alone";
#endif
}

/* Eight tiles of 16 rows of 64 bytes: 0 to 3 zero, 4 to 7 loaded from 4 KiB. */
static void amx_begin(const uint8_t *operands)
{
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int i = 0; i < 8; i++) shape.row_bytes[i] = 64, shape.rows[i] = 16;
    __asm__ volatile("ldtilecfg %0" ::"m"(shape));
    __asm__ volatile("tilezero %tmm0\n\ttilezero %tmm1\n\ttilezero %tmm2\n\ttilezero %tmm3");
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm4\n\ttileloadd 1024(%0,%1,1), %%tmm5\n\t"
                     "tileloadd 2048(%0,%1,1), %%tmm6\n\ttileloadd 3072(%0,%1,1), %%tmm7" ::"r"(operands),
                     "r"((ptrdiff_t)64)
                     : "memory");
}

static void amx_end(void) { __asm__ volatile("tilerelease"); }

#endif
