/* The tile instructions of AMX by short names. With SIS_EMULATED_AMX, which only a test defines, they are done in C. */
#ifndef SIS_TILES_H
#define SIS_TILES_H

#include <stdint.h>

/* What the processor reads to shape its tiles. */
struct tile_shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

#if defined(SIS_EMULATED_AMX)
#include "tiles_emulated.h"
#else
#include <immintrin.h>
/* Numbers of tiles must be constants. */
#define tile_load(TILE_NUMBER, FROM, STRIDE) _tile_loadd(TILE_NUMBER, FROM, STRIDE)
#define tile_store(TILE_NUMBER, TO, STRIDE) _tile_stored(TILE_NUMBER, TO, STRIDE)
#define tile_zero(TILE_NUMBER) _tile_zero(TILE_NUMBER)
#define tile_multiply(SUM, A, B) _tile_dpbf16ps(SUM, A, B)
#define tile_release() _tile_release()

static inline void tile_shape(const struct tile_shapes *shapes)
{
    __asm__ volatile("" : : "r"(shapes) : "memory"); /* gcc 12 leaves out the stores to what is only read here */
    _tile_loadconfig(shapes);
}
#endif

#endif
