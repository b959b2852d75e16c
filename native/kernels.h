/* What one instruction set offers to the shared loops: a table of functions, one file per instruction set.
 *
 * Rows are handled in groups of up to `max_rows`, chosen by sis_group_rows from the number of rows alone. Arithmetic
 * of a row never depends on its group, so a row's result depends neither on threads nor on its neighbours. A set with
 * instructions for whole matrices may offer `many` too, whose arithmetic may differ: which of them is used depends on
 * the number of rows, but never on threads. */
#ifndef SIS_KERNELS_H
#define SIS_KERNELS_H

#include "span.h"
#include <sis/program.h>

#define TILE 16      /* rows of weights in a tile */
#define MAX_GROUP 12 /* the largest max_rows */
#define MAX_HEAD 512 /* the largest head dimension */
#define BLOCK 32     /* values that share an activation scale */
#define LOG_TILES 2  /* the most tiles in a unit of a linear, as a power of two */

/* A block of activations, one cache line: 32 values, their scale, and what cancels a weight's offset exactly. */
struct q8_block {
    int8_t q[BLOCK];
    float d;         /* value = d * q */
    float minus_ds;  /* -d * sum(q) */
    int32_t minus_8; /* -8 * sum(q), for weights stored as 0..15 */
    int32_t minus_128;
    int32_t minus_32[2]; /* -32 * sum of each half */
    float minus_ds16[2]; /* -d * sum of each half */
};

/* The keys and values of one key head within a page; program.h has the layout. */
struct kv_layout {
    uint32_t type, page_size, k_dim, v_dim;
    uint32_t v_pad;            /* v_dim in whole vectors */
    uint32_t k_turn, v_turn;   /* neighbours that are rotated together, or 1 */
    uint32_t v_blocks;         /* scales of a value, of types that have scales */
    size_t k_scales, v_scales; /* where they begin */
    size_t key_bytes;          /* the values begin after them */
    size_t bytes;
};

static inline int sis_kv_has_scales(uint32_t type) { return type == SIS_KV_Q8_0 || type == SIS_KV_Q4_0; }

static inline struct kv_layout sis_kv_layout(uint32_t type, uint32_t page_size, uint32_t k_dim, uint32_t v_dim)
{
    struct kv_layout l = {.type = type, .page_size = page_size, .k_dim = k_dim, .v_dim = v_dim};
    l.v_pad = (v_dim + TILE - 1) / TILE * TILE;
    l.v_blocks = (l.v_pad + BLOCK - 1) / BLOCK;
    l.k_turn = l.v_turn = 1;
    size_t page = page_size, keys = k_dim, values = l.v_pad, scales = 0;
    if (sis_kv_has_scales(type)) {
        if (type == SIS_KV_Q4_0) {
            keys = (keys + 1) / 2;
            values = l.v_blocks * (BLOCK / 2);
        }
        scales = (k_dim + BLOCK - 1) / BLOCK * 2;
        l.k_turn = k_dim & -k_dim;
        l.v_turn = (v_dim & -v_dim) < 64 ? v_dim & -v_dim : 64; /* values lose more where more are rotated together */
    } else if (type == SIS_KV_BF16) {
        keys = (keys + 1) / 2 * 4;
        values *= 2;
    } else {
        keys *= type == SIS_KV_F16 ? 2 : 4;
        values *= type == SIS_KV_F16 ? 2 : 4;
    }
    l.k_scales = keys * page;
    l.key_bytes = l.k_scales + scales * page;
    l.v_scales = l.key_bytes + values * page;
    l.bytes = l.v_scales + (scales ? l.v_blocks * 2 * page : 0);
    return l;
}

/* A row's sums are taken over spans of this many keys, aligned to position, each from nothing, and joined in order of
 * position: so a span may be a unit of work of its own, and nobody can tell from the result. */
#define SPAN 512

/* Attention over one group. */
struct attention {
    const struct sis_group *group, *next; /* the next group, or NULL */
    const struct sis_kv *kv;
    const float *q; /* column 0 of head 0 */
    float *out;
    size_t q_stride, out_stride;
    uint32_t n_head, n_head_kv, window;
    float scale, cap;
    const float *slopes, *sinks;
    float *watch; /* see sis_step: of this op; or NULL */
    int rounded;  /* see SIS_Q8 */
    struct kv_layout layout;
};

static inline size_t pages_of(const struct sis_group *group, uint32_t page_size)
{
    return ((size_t)group->length + page_size - 1) / page_size;
}

/* What a span leaves of one row: the output before it is divided by the sum, then the largest score and the sum. */
static inline size_t sis_part_floats(const struct kv_layout *l) { return l->v_pad + TILE; }

typedef void (*tile_fn)(const uint8_t *tile, const void *x, uint32_t m, size_t k, float *y /* m x TILE */);

/* Two tiles times up to `pair_rows` rows, read side by side: from memory two streams come faster than one. The same bits as
 * one by one. */
typedef void (*pair_fn)(const uint8_t *const tiles[2], const void *x, uint32_t m, size_t k,
                        float *const y[2] /* m x TILE each */);

/* Work on many rows, a unit or some side by side: y = x @ tiles.T + bias for rows [first, first + rows) of x and of y. */
struct many {
    uint32_t format; /* of tiles, or SIS_DECODED: floats */
    int add;         /* add to y */
    uint32_t first, rows;
    size_t k;
    const void *x; /* all rows, as `prepare` wrote them in the form for this format */
    const uint8_t *tiles;
    size_t tile_bytes; /* from one tile to the next */
    size_t n;          /* rows of weights in these tiles: the last tile may hold fewer than sixteen */
    float *y;          /* where row 0 begins */
    size_t stride;
    const float *bias; /* (n,) or NULL */
    uint8_t *scratch;  /* of this thread, aligned to 64 */
    struct span ahead; /* what this thread reads after the unit: to be asked for meanwhile */
};

/* Attention of the rows of a group, where they are many: as `attend` and `attend_span` of struct kernels, with other sums.
 * What they leave is joined by the same `join`. A pair's result must not depend on the other pairs. */
struct many_pairs {
    uint32_t from; /* the least number of a group's rows that this is used for */
    uint32_t most; /* (row, head) pairs of a unit */
    size_t (*scratch_bytes)(const struct kv_layout *layout, uint32_t m);
    void (*attend)(const struct attention *job, uint32_t head, uint32_t first, uint32_t m, uint8_t *scratch);
    void (*attend_span)(const struct attention *job, uint32_t head, uint32_t first, uint32_t m, uint64_t span,
                        float *parts, uint8_t *scratch);
};

/* Rows on their way into a set's own form: m rows, of which the first lies at x, are rows [first, first + m) of `rows`, and
 * their values columns [column, column + n) of k: of whole blocks, but for the last. */
struct unprepared {
    const float *x;
    size_t stride;
    uint32_t first, m, rows, form;
    size_t column, n, k;
};

/* How many rows are multiplied at once. A row's result must not depend on the other rows, nor on how rows are cut. */
struct many_rows {
    const struct many_rows *fewer; /* where this is not used, unless NULL; for as many rows it takes no more room */
    uint32_t from;                 /* the least number of rows that this is used for */
    int same_bits;                 /* a row's result is that of the tile functions */
    uint32_t forms; /* SIS_Q8, SIS_FLOAT: what it is used for; linears that read another form keep to tile functions */
    const struct many_pairs *attention; /* or NULL */
    uint32_t units;                     /* how many side by side a job should be of: it has room for so many */
    /* Bytes of so many rows of k values in one of the forms, and of scratch for a thread: more rows take no less. Rows
     * in several places take no more than all in one, and what a row takes for each place. */
    size_t (*x_bytes)(uint32_t rows, size_t k, uint32_t form);
    size_t (*scratch_bytes)(uint32_t rows, size_t k, uint32_t form);
    /* How many of the rows a unit takes: of four tiles of weights. */
    uint32_t (*unit_rows)(uint32_t rows, size_t k, uint32_t form);
    /* Write some rows to their place among all in out, while others write others. */
    void (*prepare)(const struct unprepared *some, void *out);
    void (*multiply)(const struct many *job);
};

struct kernels {
    const char *isa;
    /* A tile of n rows, from rows of a format or from rows [first, first + n) of what was unpacked; what n rows do not fill
     * is zero already. */
    void (*pack)(uint32_t format, const uint8_t *rows, size_t stride, uint32_t n, size_t n_cols, uint8_t *out);
    void (*pack_unpacked)(uint32_t format, const struct sis_unpacked *rows, size_t first, uint32_t n, uint8_t *out);
    uint32_t max_rows;
    uint32_t rounds; /* F16, BF16: activations are rounded to it where weights are of it; or F32: none are */
    /* m rows in the order that tile functions read: q8_block [k / 32][m]; float [k][m], which are followed by the rounded
     * ones, where there are such: of F16 m floats and then halves [k][m], of BF16 pairs [k / 2][m]. */
    void (*prepare_q8)(const float *x, size_t stride, uint32_t m, size_t k, struct q8_block *out);
    void (*prepare_float)(const float *x, size_t stride, uint32_t m, size_t k, float *out);
    void (*prepare_rounded)(const float *x, size_t stride, uint32_t m, size_t k, float *out);
    tile_fn tile[SIS_DECODED];
    pair_fn pair[SIS_DECODED]; /* or NULL */
    /* The most rows for which tiles are read in pairs. */
    uint32_t (*pair_rows)(uint32_t format, size_t tile_bytes, size_t k);
    /* y[m][TILE]: n decoded rows [n][k], at most a tile, times m rows of x. */
    void (*dot)(const float *w, uint32_t n, const float *x, size_t stride, uint32_t m, size_t k, float *y);
    const struct many_rows *many; /* or NULL */
    void (*norm)(const float *x, float *y, size_t n, const struct sis_op *op);
    void (*activate)(const float *x, const float *gated, float *y, size_t n, uint32_t activation);
    void (*rotate)(float *x, size_t half, const float *cos, const float *sin, int neox);
    void (*scale)(float *x, size_t n, float scale, float cap);
    /* A key and a value into place `slot` of a page; `block` is where the page keeps their head. */
    void (*store)(const struct kv_layout *layout, const float *key, const float *value, uint8_t *block, uint32_t slot);
    /* The (row, head) pairs [first, first + m) of one key head: over all keys into the output; over one span into
     * `parts`, m of them; from the parts of n spans in order, `stride` floats from span to span, into the output. */
    void (*attend)(const struct attention *job, uint32_t head, uint32_t first, uint32_t m);
    void (*attend_span)(const struct attention *job, uint32_t head, uint32_t first, uint32_t m, uint64_t span,
                        float *parts);
    void (*join)(const struct attention *job, uint32_t head, uint32_t first, uint32_t m, const float *parts,
                 size_t stride, uint64_t n);
    uint64_t (*sum)(const uint8_t *data, size_t bytes);
};

/* What multiplies so many rows in a form at once, or NULL: then tile functions do. */
static inline const struct many_rows *sis_many_for(const struct kernels *kernels, uint64_t rows, uint32_t form,
                                                   int invariant)
{
    const struct many_rows *many = kernels->many;
    while (many && (rows < many->from || !(many->forms & form) || (invariant && !many->same_bits))) many = many->fewer;
    return many;
}

/* The least number of rows for which there is such. */
static inline uint32_t sis_least_many(const struct kernels *kernels, uint32_t form, int invariant)
{
    uint32_t least = UINT32_MAX;
    for (const struct many_rows *many = kernels->many; many; many = many->fewer)
        if (many->forms & form && (many->same_bits || !invariant) && many->from < least) least = many->from;
    return least;
}

static inline int sis_any_many(const struct kernels *kernels, uint64_t rows)
{
    return sis_many_for(kernels, rows, SIS_Q8 | SIS_FLOAT, 0) != NULL;
}

const struct kernels *sis_kernels(void); /* choose.c */
extern size_t sis_far;                   /* see vec.h */

static inline int sis_rounds(const struct kernels *kernels, uint32_t format)
{
    return kernels->rounds != SIS_F32 && format == kernels->rounds;
}

/* Floats of a row of k activations, with the rounded one. */
static inline size_t sis_float_row(const struct kernels *kernels, size_t k)
{
    return k + (kernels->rounds == SIS_F16) + (kernels->rounds != SIS_F32 ? (k + 1) / 2 : 0);
}

/* Which of the two are read. */
struct sis_read {
    int plain, rounded;
};

static inline void sis_reads(const struct kernels *kernels, uint32_t format, struct sis_read *read)
{
    if (format > SIS_BF16) return;
    if (sis_rounds(kernels, format)) read->rounded = 1;
    else read->plain = 1;
}

static inline void sis_prepare_floats(const struct kernels *kernels, struct sis_read read, const float *x,
                                      size_t stride, uint32_t m, size_t k, float *out)
{
    if (read.plain) kernels->prepare_float(x, stride, m, k, out);
    if (read.rounded) kernels->prepare_rounded(x, stride, m, k, out + m * k);
}

/* The size of the next group when `rows` are left. */
static inline uint32_t sis_group_rows(uint64_t rows, uint32_t max_rows)
{
    static const uint32_t sizes[] = {12, 8, 6, 4, 3, 2, 1};
    for (unsigned i = 0; i < 7; i++)
        if (sizes[i] <= max_rows && sizes[i] <= rows) return sizes[i];
    return 1;
}

/* take.c */
void sis_take_row(const struct sis_weight *weight, int32_t row, float *out);

/* pack.c */
size_t sis_one_tile_bytes(uint32_t format, size_t n_cols);
void sis_pack_tile(const struct sis_weight *weight, size_t tile, uint8_t *out, float *scratch);
void sis_pack_unpacked_tile(uint32_t format, const struct sis_unpacked *rows, size_t tile, uint8_t *out);
/* Whether a tile of raw rows lies where it stays. Its rows may have been given back: they would come again. */
static inline int sis_is_made(const struct sis_weight *weight, size_t tile)
{
    return weight->place && __atomic_load_n(&weight->place->states[tile], __ATOMIC_ACQUIRE) == SIS_MADE;
}
/* Tiles [t, t + n) side by side: where they lie or, of raw rows, made in scratch or where they stay. */
const uint8_t *sis_tiles_of(const struct sis_weight *weight, size_t t, size_t n, uint8_t *scratch, float *decoded);

/* acc[tile][m][TILE]: n tiles that lie side by side times m rows. Few read their first half and their second in step. */
static inline void sis_multiply_tiles(const struct kernels *kernels, uint32_t format, const uint8_t *tiles, size_t n,
                                      const void *x, uint32_t m, size_t k, float *acc)
{
    const size_t bytes = sis_one_tile_bytes(format, k);
    const size_t half = kernels->pair[format] && m <= kernels->pair_rows(format, bytes, k) ? n / 2 : 0;
    for (size_t i = 0; i < half; i++) {
        const uint8_t *const two[2] = {tiles + i * bytes, tiles + (half + i) * bytes};
        float *const y[2] = {acc + i * m * TILE, acc + (half + i) * m * TILE};
        kernels->pair[format](two, x, m, k, y);
    }
    for (size_t i = 2 * half; i < n; i++) kernels->tile[format](tiles + i * bytes, x, m, k, acc + i * m * TILE);
}

/* map.c: the pages of these bytes of a file are needed soon, or not any more; those of memory are there. */
void sis_bring(const uint8_t *data, size_t bytes);
void sis_touch(uint8_t *data, size_t bytes);
void sis_give_back(const uint8_t *data, size_t bytes);

#endif
