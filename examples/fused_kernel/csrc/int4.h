/* What the instruction sets share: how weights and activations lie in memory. */
#ifndef INT4_H
#define INT4_H

#include <sis/abi.h>

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#define BLOCK 32
#define TILE 16      /* rows of weights side by side, so that a vector holds the same columns of all of them */
#define PART_TILES 4 /* a part: its activations serve so many tiles, and there are enough parts for all threads */
/* Bytes of a block in the file: a half d, then 16 bytes; low nibbles are values 0 to 15, high ones the rest. */
#define ROW_BYTES 18

/* A tile: for each block four vectors, where byte y of row r in vector i holds columns 8 i + y (low) and 8 i + 4 + y
 * (high); then the scales of each block. Vectors so begin on borders of 64 bytes. */
#define CODES_BYTES (4 * TILE * 4)

static inline const uint8_t *codes(const uint8_t *tile, uint64_t block, int i)
{
    return tile + block * CODES_BYTES + i * TILE * 4;
}

static inline const uint16_t *scales(const uint8_t *tile, uint64_t n_blocks, uint64_t block)
{
    return (const uint16_t *)(const void *)(tile + n_blocks * CODES_BYTES) + block * TILE;
}

static inline uint64_t tile_bytes(uint64_t n_blocks) { return (n_blocks * (CODES_BYTES + 2 * TILE) + 63) / 64 * 64; }

/* A block of one row of activations: value = d * q. The sum cancels the 8 that every weight has too much. */
struct activations {
    int8_t q[BLOCK];
    float d;
    int32_t minus_8; /* -8 * sum(q) */
};

/* y[m][TILE] = n_blocks blocks of a tile times m rows of activations, each `stride` blocks after the one before. A row's sum
 * is taken block by block, exactly within a block, so neither m nor the instruction set changes the order. */
typedef void (*tile_fn)(const uint8_t *tile, const struct activations *x, uint64_t stride, uint64_t n_blocks, float *y);

/* A block of sixteen rows of activations, as instructions for many rows read them. */
struct sixteen {
    int8_t q[16][BLOCK];
    float d[16];
    int32_t unused[16]; /* so that a row takes the bytes of `activations`, and more rows no fewer */
};

/* y[n_groups][tile][row][column] = n_tiles tiles times groups of sixteen rows, each of n_blocks blocks. */
typedef void (*many_fn)(const uint8_t *tiles, uint64_t n_tiles, uint64_t n_blocks, const struct sixteen *x,
                        uint64_t n_groups, float (*y)[PART_TILES][16][TILE]);

#define MANY 8   /* rows, from which on `many` is faster */
#define GROUPS 8 /* at once: their sums stay in the second-level cache, and weights are unpacked once for all */

/* For groups of 1, 2, 4 and 8 rows; and for MANY rows or more, where there are instructions for that. */
struct isa {
    const char *name;
    void (*quantize)(const float *x, struct activations *out); /* a block */
    tile_fn of_1, of_2, of_4, of_8;
    many_fn many;
};

extern const struct isa int4_portable;
#if defined(__x86_64__)
extern const struct isa int4_avx2, int4_avx512_vnni, int4_amx;
void int4_many_amx(const uint8_t *tiles, uint64_t n_tiles, uint64_t n_blocks, const struct sixteen *x,
                   uint64_t n_groups, float (*y)[PART_TILES][16][TILE]);
#endif

#endif
