/* The tile instructions of AMX by short names. With SIS_EMULATED, which only a test defines, they are done in C. */
#ifndef SIS_TILES_H
#define SIS_TILES_H

#include <stdint.h>

/* What the processor reads to shape its tiles. */
struct tile_shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

#if defined(SIS_EMULATED)
#include "tiles_emulated.h"
#else
#include <immintrin.h>
/* gcc 12 does not know that these read memory, and may leave out or put off what is stored there. */
#define tile_fence(ADDRESS) __asm__ volatile("" : : "r"(ADDRESS) : "memory")

/* Numbers of tiles must be literals: gcc writes them into an instruction as they are spelt. */
#define tile_load(NUMBER, FROM, STRIDE)                                                                                \
    do {                                                                                                               \
        tile_fence(FROM);                                                                                              \
        _tile_loadd(NUMBER, FROM, STRIDE);                                                                             \
    } while (0)
#define tile_store(NUMBER, TO, STRIDE) _tile_stored(NUMBER, TO, STRIDE)
#define tile_zero(NUMBER) _tile_zero(NUMBER)
#define tile_multiply(SUM, A, B) _tile_dpbf16ps(SUM, A, B)
#define tile_multiply_bytes(SUM, A, B) _tile_dpbssd(SUM, A, B)
#define tile_release() _tile_release()

static inline void tile_shape(const struct tile_shapes *shapes)
{
    tile_fence(shapes);
    _tile_loadconfig(shapes);
}
#endif

#endif
