/* INT4 as an object of rung 3: packing, preparing activations, and cutting the work. Compiled for any processor. */
#define _GNU_SOURCE /* syscall */
#include "int4.h"
#include <string.h>

struct int4 {
    struct sis_linear linear; /* first: its address is ours */
    const struct isa *isa;
    uint64_t n_rows, n_blocks;
    _Alignas(64) uint8_t tiles[];
};

static uint64_t n_tiles(uint64_t n_rows) { return (n_rows + TILE - 1) / TILE; }

/* Rows of weights in a tile: the last may hold fewer. */
static uint64_t in_tile(const struct int4 *w, uint64_t t)
{
    return w->n_rows - t * TILE < TILE ? w->n_rows - t * TILE : TILE;
}

/* Whether so many rows are prepared and multiplied in groups of sixteen. */
static int is_many(const struct int4 *w, uint64_t n_rows) { return w->isa->many && n_rows >= MANY; }

static uint64_t prepared_bytes(void *self, uint64_t n_rows)
{
    const struct int4 *w = self;
    return (is_many(w, n_rows) ? (n_rows + 15) / 16 * 16 : n_rows) * w->n_blocks * sizeof(struct activations);
}

static void prepare(void *self, const struct sis_rows *x, uint64_t first, uint64_t n, void *out)
{
    const struct int4 *w = self;
    for (uint64_t r = first; r < first + n; r++)
        for (uint64_t b = 0; b < w->n_blocks; b++) {
            struct activations one;
            w->isa->quantize(x->values + r * x->stride + b * BLOCK, &one);
            if (is_many(w, x->n)) {
                struct sixteen *to = (struct sixteen *)out + r / 16 * w->n_blocks + b;
                memcpy(to->q[r % 16], one.q, BLOCK);
                to->d[r % 16] = one.d;
                for (uint64_t i = r % 16 + 1; i < 16 && r + 1 == x->n; i++) to->d[i] = 0; /* rows that are not there */
            } else ((struct activations *)out)[r * w->n_blocks + b] = one;
        }
}

/* Some tiles times all rows, of which GROUPS times sixteen have their sums in memory nearby. */
static void run_many(const struct int4 *w, const struct sixteen *x, struct sis_rows *y, uint64_t first, uint64_t tiles)
{
    float sums[GROUPS][PART_TILES][16][TILE] __attribute__((aligned(64)));
    for (uint64_t row = 0; row < y->n; row += 16 * GROUPS) {
        const uint64_t n = y->n - row < 16 * GROUPS ? y->n - row : 16 * GROUPS;
        w->isa->many(w->tiles + first * tile_bytes(w->n_blocks), tiles, w->n_blocks, x + row / 16 * w->n_blocks,
                     (n + 15) / 16, sums);
        for (uint64_t i = 0; i < n; i++)
            for (uint64_t t = 0; t < tiles; t++) {
                float *to = y->values + (row + i) * y->stride + (first + t) * TILE;
                memcpy(to, sums[i / 16][t][i % 16], in_tile(w, first + t) * sizeof *to);
            }
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
    if (is_many(w, x->n)) {
        run_many(w, prepared, y, first, stop - first);
        return 0;
    }
    for (uint64_t row = 0, m; row < x->n; row += m) {
        const uint64_t left = x->n - row;
        const struct activations *rows = (const struct activations *)prepared + row * w->n_blocks;
        m = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
        const tile_fn multiply = m == 8 ? w->isa->of_8 : m == 4 ? w->isa->of_4 : m == 2 ? w->isa->of_2 : w->isa->of_1;
        for (uint64_t t = first; t < stop; t++) {
            multiply(w->tiles + t * tile_bytes(w->n_blocks), rows, w->n_blocks, w->n_blocks, acc);
            for (uint64_t i = 0; i < m; i++)
                memcpy(y->values + (row + i) * y->stride + t * TILE, acc + i * TILE, in_tile(w, t) * sizeof(float));
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
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Tiles are a large state: Linux lets a process use them once it has asked. */
static int may_use_tiles(void)
{
#if defined(__linux__)
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return !syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA);
#else
    return 0;
#endif
}

/* By what the processor says it has and the system says it saves, as Intel's manual (volume 1, 14 and 15) asks. */
static int best(void)
{
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & (1u << 27 | 1u << 12 | 1u << 29)) != (1u << 27 | 1u << 12 | 1u << 29))
        return 0; /* OSXSAVE, FMA, F16C */
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (low & 6) != 6 || !(b & 1u << 5)) return 0; /* AVX2 */
    const int wide = (low & 0xe6) == 0xe6 && b & 1u << 16 && b & 1u << 30 && b & 1u << 31;      /* AVX-512 F, BW, VL */
    if (!wide || !(c & 1u << 11)) return 1;                                                     /* VNNI */
    const unsigned amx = 1u << 24 | 1u << 25;                                                   /* tiles of int8 */
    return (low & 3u << 17) == 3u << 17 && (d & amx) == amx && may_use_tiles() ? 3 : 2;
}

static const struct isa *const SETS[] = {&int4_portable, &int4_avx2, &int4_avx512_vnni, &int4_amx};
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
        .form = n_blocks * 2 + (SETS[isa]->many != NULL),
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
