/* INT4 as an object of rung 3: packing, preparing activations, and cutting the work. Compiled for any processor. */
#include "int4.h"
#include <string.h>

#define PART_TILES 2 /* a part: its activations serve two tiles, and there are enough parts for all threads */

struct int4 {
    struct sis_linear linear; /* first: its address is ours */
    const struct isa *isa;
    uint64_t n_rows, n_blocks;
    _Alignas(64) uint8_t tiles[];
};

static uint64_t n_tiles(uint64_t n_rows) { return (n_rows + TILE - 1) / TILE; }

static uint64_t prepared_bytes(void *self, uint64_t n_rows)
{
    const struct int4 *w = self;
    return n_rows * w->n_blocks * sizeof(struct activations);
}

/* The largest magnitude of a block becomes 127. Adding 1.5 * 2^23 rounds to the nearest even integer. */
static void quantize(const float *x, struct activations *out)
{
    float largest = 0;
    int32_t sum = 0;
    for (int i = 0; i < BLOCK; i++) {
        float a = x[i] < 0 ? -x[i] : x[i];
        largest = a > largest ? a : largest;
    }
    const float d = largest / 127, inverse = largest > 1e-30f ? 127 / largest : 0;
    for (int i = 0; i < BLOCK; i++) {
        const float v = x[i] * inverse + 12582912.0f - 12582912.0f;
        out->q[i] = (int8_t)(v < -127 ? -127 : v > 127 ? 127 : v == v ? v : 0);
        sum += out->q[i];
    }
    out->d = d;
    out->minus_8 = -8 * sum;
}

static void prepare(void *self, const struct sis_rows *x, uint64_t first, uint64_t n, void *out)
{
    const struct int4 *w = self;
    for (uint64_t r = first; r < first + n; r++) {
        struct activations *to = (struct activations *)out + r * w->n_blocks;
        for (uint64_t b = 0; b < w->n_blocks; b++) quantize(x->values + r * x->stride + b * BLOCK, to + b);
    }
}

static int32_t run(void *self, const struct sis_rows *x, const void *prepared, struct sis_rows *y, uint32_t part,
                   uint32_t parts)
{
    const struct int4 *w = self;
    const uint64_t first = (uint64_t)part * PART_TILES, all = n_tiles(w->n_rows);
    const uint64_t stop = first + PART_TILES < all ? first + PART_TILES : all;
    float acc[8 * TILE] __attribute__((aligned(64)));
    (void)parts;
    for (uint64_t row = 0, m; row < x->n; row += m) {
        const uint64_t left = x->n - row;
        const struct activations *rows = (const struct activations *)prepared + row * w->n_blocks;
        m = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        const tile_fn multiply = m == 8 ? w->isa->of_8 : m == 4 ? w->isa->of_4 : m == 2 ? w->isa->of_2 : w->isa->of_1;
        for (uint64_t t = first; t < stop; t++) {
            multiply(w->tiles + t * tile_bytes(w->n_blocks), rows, w->n_blocks, w->n_blocks, acc);
            const uint64_t n = w->n_rows - t * TILE < TILE ? w->n_rows - t * TILE : TILE;
            for (uint64_t i = 0; i < m; i++)
                memcpy(y->values + (row + i) * y->stride + t * TILE, acc + i * TILE, n * sizeof(float));
        }
    }
    return 0;
}

static void pack(uint8_t *tile, const uint8_t *rows, uint64_t row_bytes, uint64_t n, uint64_t n_blocks)
{
    memset(tile, 0, tile_bytes(n_blocks));
    for (uint64_t r = 0; r < n; r++)
        for (uint64_t b = 0; b < n_blocks; b++) {
            const uint8_t *from = rows + r * row_bytes + b * ROW_BYTES, *q = from + 2;
            memcpy(tile + n_blocks * CODES_BYTES + (b * TILE + r) * 2, from, 2);
            for (int i = 0; i < 2; i++) /* columns below 16 are low nibbles in the file, the others high ones */
                for (int y = 0; y < 4; y++) {
                    uint8_t *to = tile + b * CODES_BYTES + (uint64_t)i * TILE * 4 + r * 4 + y;
                    to[0] = (uint8_t)((q[8 * i + y] & 15) | q[8 * i + 4 + y] << 4);
                    to[CODES_BYTES / 2] = (uint8_t)(q[8 * i + y] >> 4 | (q[8 * i + 4 + y] & 240));
                }
        }
}

#if defined(__x86_64__)
#include <cpuid.h>

/* By what the processor says it has and the system says it saves, as Intel's manual (volume 1, 14 and 15) asks. */
static int best(void)
{
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & (1u << 27 | 1u << 12 | 1u << 29)) != (1u << 27 | 1u << 12 | 1u << 29))
        return 0; /* OSXSAVE, FMA, F16C */
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (low & 6) != 6 || !(b & 1u << 5)) return 0; /* AVX2 */
    const int wide = (low & 0xe6) == 0xe6 && b & 1u << 16 && b & 1u << 30 && b & 1u << 31;      /* AVX-512 F, BW, VL */
    return wide && c & 1u << 11 ? 2 : 1;                                                        /* VNNI */
}

static const struct isa *const SETS[] = {&int4_portable, &int4_avx2, &int4_avx512_vnni};
#else
static int best(void) { return 0; }

static const struct isa *const SETS[] = {&int4_portable};
#endif

/* The number of the best instruction set here; all below it work too. */
EXPORT int32_t int4_best(void) { return best(); }

EXPORT const char *int4_name(int32_t isa) { return SETS[isa]->name; }

/* Bytes that a matrix takes, packed. */
EXPORT uint64_t int4_bytes(uint64_t n_rows, uint64_t n_cols)
{
    return sizeof(struct int4) + n_tiles(n_rows) * tile_bytes(n_cols / BLOCK);
}

/* Pack a matrix into memory of that size, aligned to 64; the struct sis_linear lies at its beginning. */
EXPORT void int4_pack(void *memory, const uint8_t *rows, uint64_t row_bytes, uint64_t n_rows, uint64_t n_cols,
                      int32_t isa)
{
    struct int4 *w = memory;
    const uint64_t n = n_tiles(n_rows), n_blocks = n_cols / BLOCK;
    w->linear = (struct sis_linear){
        .abi = SIS_ABI,
        .parts = (uint32_t)((n + PART_TILES - 1) / PART_TILES),
        .self = w,
        .run = run,
        .prepared_bytes = prepared_bytes,
        .prepare = prepare,
        .form = n_blocks,
    };
    w->isa = SETS[isa];
    w->n_rows = n_rows;
    w->n_blocks = n_blocks;
    for (uint64_t t = 0; t < n; t++) {
        const uint64_t left = n_rows - t * TILE;
        pack(w->tiles + t * tile_bytes(n_blocks), rows + t * TILE * row_bytes, row_bytes, left < TILE ? left : TILE,
             n_blocks);
    }
}
