/* Attention of many rows with AMX: scores and outputs are products of tiles, 32 (row, head) pairs by 32 keys or
 * dimensions at a time. A span of keys is packed into tiles once for all pairs of a unit; then each 32 of them have all
 * their scores of it, their weights, which take the scores' place, and their output.
 *
 * As in amx.c floats are split into two bfloat16 each, those of a cache in F32 or F16, its queries and weights: what is left
 * out is 2^-16. All are rounded to one where a cache in BF16, Q8_0 or Q4_0 holds less than that, and over a cache in F16 where
 * the output is rounded too, for integer weights: a relative 2^-8 at most. */
#define V_HAS_DOT
#include "zmm.h"
#include "cached.inc"
#include "parts.inc"
#include "tiles.h"
#include "bfloats.h"

#define SIDE 32  /* pairs, keys, dimensions of four tiles of sums */
#define FROM 16  /* rows of a group */
#define MOST 512 /* pairs of a unit */
#define SPAN_TILES (SPAN / TILE)

#define HIDDEN (-1e30f) /* a score without weight: of an infinite one 2^x would be no number */

static int is_split(const struct attention *a)
{
    return a->layout.type == SIS_KV_F32 || (a->layout.type == SIS_KV_F16 && !a->rounded);
}

/* What a unit keeps in its thread's scratch. A step is two tiles, then the two of what rounding has left. */
struct room {
    size_t step, k_steps, v_steps; /* bytes; of 32 dimensions each */
    size_t part;                   /* floats of what a span leaves of a pair */
    uint8_t *queries;              /* [pairs / 32][k_steps] steps */
    uint8_t *keys;                 /* [SPAN / 32][k_steps] steps */
    uint8_t *values;               /* [v_steps][SPAN / 32] steps */
    uint8_t *scores;               /* of 32 pairs: [2][SPAN / 16] tiles */
    float *sums, *one;             /* parts: of all pairs, and of 32 in one span */
    size_t bytes;
};

static void *place(struct room *room, uint8_t *base, size_t bytes)
{
    void *found = base ? base + room->bytes : NULL;
    room->bytes += (bytes + 63) / 64 * 64;
    return found;
}

static struct room lay_out(const struct kv_layout *l, int split, uint32_t m, uint8_t *base)
{
    const size_t pairs = (m + SIDE - 1) / SIDE * SIDE;
    struct room room = {
        .step = split ? 4 * ONE : 2 * ONE,
        .k_steps = (l->k_dim + SIDE - 1) / SIDE,
        .v_steps = (l->v_dim + SIDE - 1) / SIDE,
        .part = sis_part_floats(l),
    };
    room.queries = place(&room, base, pairs / SIDE * room.k_steps * room.step);
    room.keys = place(&room, base, SPAN / SIDE * room.k_steps * room.step);
    room.values = place(&room, base, SPAN / SIDE * room.v_steps * room.step);
    room.scores = place(&room, base, 2 * SPAN_TILES * ONE);
    room.sums = place(&room, base, pairs * room.part * sizeof(float));
    room.one = place(&room, base, SIDE * room.part * sizeof(float));
    return room;
}

static size_t scratch_bytes(const struct kv_layout *l, uint32_t m) { return lay_out(l, 1, m, NULL).bytes; }

static void pack_queries(const struct attention *a, uint32_t head, uint32_t first, uint32_t m, const struct room *room)
{
    const int split = is_split(a);
    float x[MAX_HEAD + SIDE] __attribute__((aligned(64))) = {0};
    for (uint32_t i = 0; i < (m + SIDE - 1) / SIDE * SIDE; i++) {
        if (i < m) scaled_query(a, head, first + i, x);
        else if (i == m) memset(x, 0, sizeof x);
        uint8_t *out = room->queries + i / SIDE * room->k_steps * room->step + i % SIDE * 64;
        for (size_t s = 0; s < room->k_steps; s++, out += room->step)
            put_row(split, out, (__m512)v_load(x + s * SIDE), (__m512)v_load(x + s * SIDE + VL), 2 * ONE);
    }
}

/* A row of a right tile. */
INLINE void put_pair(const int split, uint8_t *out, vf even, vf odd)
{
    if (split) put_split(out, (__m512)even, (__m512)odd);
    else put(out, (__m512)even, (__m512)odd);
}

/* Sixteen keys of a page, from `slot` on. */
INLINE void pack_keys(const int type, const int split, const struct kv_layout *l, const uint8_t *block, uint32_t slot,
                      size_t step, uint8_t *out)
{
    const size_t row = (size_t)l->page_size * BYTES_OF(type);
    const uint8_t *w = block + slot * BYTES_OF(type), *scales = block + l->k_scales + slot * 2;
    for (uint32_t first = 0; first < l->k_dim; first += SIDE, out += step, scales += (size_t)l->page_size * 2) {
        vf scale = {0};
        if (HAS_SCALES(type)) scale = v_load_half((const uint16_t *)(const void *)scales);
        for (uint32_t j = 0; j < TILE; j++) {
            const uint32_t d = first + 2 * j;
            vf even = {0}, odd = {0};
            if (d < l->k_dim) {
                const int both = PER_ROW(type) == 2 || d + 1 < l->k_dim;
                load_two(type, w, both ? row : 0, &even, &odd);
                w += 2 / PER_ROW(type) * row;
                if (!both) odd = (vf){0};
            }
            if (HAS_SCALES(type)) {
                even *= scale;
                odd *= scale;
            }
            put_pair(split, out + j * 64, even, odd);
        }
    }
}

/* Half a tile for every sixteen dimensions: n of sixteen values of a page, from `slot` on, and zeros for the others. */
INLINE void pack_values(const int type, const int split, const struct kv_layout *l, const uint8_t *block, uint32_t slot,
                        uint32_t n, size_t step, uint8_t *out)
{
    const int nibbles = type == SIS_KV_Q4_0, paired = type == SIS_KV_BF16;
    const size_t row = nibbles ? l->v_blocks * TILE : (size_t)l->v_pad * BYTES_OF(type);
    const uint8_t *first = block + l->key_bytes + slot / (paired ? 2 : 1) * row;
    const uint16_t *scales = (const uint16_t *)(const void *)(block + l->v_scales) + (size_t)slot * l->v_blocks;
    for (uint32_t d = 0; d < l->v_pad; d += TILE) {
        const uint8_t *w = first + (nibbles ? d / BLOCK * TILE : d * BYTES_OF(type));
        uint8_t *to = out + d / SIDE * (SPAN / SIDE) * step + d % SIDE / TILE * ONE;
        for (uint32_t t = 0; t < TILE; t += 2, w += (paired ? 1 : 2) * row) {
            vf even = {0}, odd = {0};
            if (t < n) {
                const int both = t + 1 < n;
                load_values(type, w, both ? row : 0, d, &even, &odd);
                if (HAS_SCALES(type)) {
                    even *= v_set(half_to_float(scales[t * l->v_blocks + d / BLOCK]));
                    odd *= v_set(half_to_float(scales[(t + (uint32_t)both) * l->v_blocks + d / BLOCK]));
                }
                if (!both) odd = (vf){0};
            }
            put_pair(split, to + t / 2 * 64, even, odd);
        }
    }
}

struct packer {
    void (*keys)(const struct kv_layout *l, const uint8_t *block, uint32_t slot, size_t step, uint8_t *out);
    void (*values)(const struct kv_layout *l, const uint8_t *block, uint32_t slot, uint32_t n, size_t step,
                   uint8_t *out);
};

#define PACK(NAME, TYPE, SPLIT)                                                                                        \
    static __attribute__((noinline)) void keys_##NAME(const struct kv_layout *l, const uint8_t *block, uint32_t slot,  \
                                                      size_t step, uint8_t *out)                                       \
    {                                                                                                                  \
        pack_keys(TYPE, SPLIT, l, block, slot, step, out);                                                             \
    }                                                                                                                  \
    static __attribute__((noinline)) void values_##NAME(const struct kv_layout *l, const uint8_t *block,               \
                                                        uint32_t slot, uint32_t n, size_t step, uint8_t *out)          \
    {                                                                                                                  \
        pack_values(TYPE, SPLIT, l, block, slot, n, step, out);                                                        \
    }                                                                                                                  \
    static const struct packer NAME = {keys_##NAME, values_##NAME};

PACK(f32, SIS_KV_F32, 1)
PACK(f16, SIS_KV_F16, 1)
PACK(rounded_f16, SIS_KV_F16, 0)
PACK(bf16, SIS_KV_BF16, 0)
PACK(q8_0, SIS_KV_Q8_0, 0)
PACK(q4_0, SIS_KV_Q4_0, 0)

static const struct packer *packer_for(const struct attention *a)
{
    static const struct packer *const PACKERS[] = {&f32, &rounded_f16, &bf16, &q8_0, &q4_0};
    return a->layout.type == SIS_KV_F16 && is_split(a) ? &f16 : PACKERS[a->layout.type];
}

/* Keys and values of tiles [from, to) of the span that begins at `start`. Returns the tiles whose page was given back. */
static uint32_t pack_span(const struct attention *a, uint32_t head, int64_t start, uint32_t from, uint32_t to,
                          const struct room *room)
{
    const struct kv_layout *l = &a->layout;
    const struct packer *packer = packer_for(a);
    uint32_t gaps = 0;
    for (uint32_t j = from; j < to; j++) {
        const int64_t at = start + j * TILE, left = (int64_t)a->group->length - at;
        const uint32_t n = left < 0 ? 0 : left < TILE ? (uint32_t)left : TILE, slot = (uint32_t)(at % l->page_size);
        const uint8_t *block = n ? block_of(a, head, at) : NULL;
        uint8_t *values = room->values + j / 2 * room->step + j % 2 * (ONE / 2);
        if (!block) gaps |= 1u << j;
        else packer->keys(l, block, slot, room->step, room->keys + j / 2 * room->k_steps * room->step + j % 2 * ONE);
        packer->values(l, block, slot, block ? n : 0, room->step, values);
    }
    return gaps;
}

/* Sums in tiles 0 to 3 += one step: rows 0 to 15 of the left side with either tile of the right, then rows 16 to 31, which
 * lie `lower` bytes further on. What rounding has left of the left side lies `rest` further on. */
INLINE void products(const int split, const int tall, const int wide, const uint8_t *x, size_t lower, size_t rest,
                     const uint8_t *w)
{
    tile_load(4, x, 64);
    tile_load(6, w, 64);
    tile_multiply(0, 4, 6);
    if (wide) {
        tile_load(7, w + ONE, 64);
        tile_multiply(1, 4, 7);
    }
    if (tall) {
        tile_load(5, x + lower, 64);
        tile_multiply(2, 5, 6);
        if (wide) tile_multiply(3, 5, 7);
    }
    if (!split) return;
    tile_load(6, w + 2 * ONE, 64);
    tile_multiply(0, 4, 6);
    if (tall) tile_multiply(2, 5, 6);
    if (wide) {
        tile_load(7, w + 3 * ONE, 64);
        tile_multiply(1, 4, 7);
        if (tall) tile_multiply(3, 5, 7);
    }
    tile_load(4, x + rest, 64);
    tile_load(6, w, 64);
    tile_multiply(0, 4, 6);
    if (wide) {
        tile_load(7, w + ONE, 64);
        tile_multiply(1, 4, 7);
    }
    if (!tall) return;
    tile_load(5, x + lower + rest, 64);
    tile_multiply(2, 5, 6);
    if (wide) tile_multiply(3, 5, 7);
}

INLINE void no_sums(void)
{
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
}

/* Scores of 32 pairs with blocks [from, to) of 32 keys: tiles of 16 pairs by 16 keys, those of pairs 16 to 31 after all of
 * the others. */
INLINE void scores_of(const int split, const int tall, const struct room *room, const uint8_t *queries, uint32_t from,
                      uint32_t to)
{
    const size_t step = split ? 4 * ONE : 2 * ONE;
    for (uint32_t b = from; b < to; b++) {
        const uint8_t *x = queries, *w = room->keys + b * room->k_steps * step;
        no_sums();
        for (size_t s = 0; s < room->k_steps; s++, x += step, w += step) products(split, tall, 1, x, ONE, 2 * ONE, w);
        uint8_t *out = room->scores + 2 * b * ONE;
        tile_store(0, out, 64);
        tile_store(1, out + ONE, 64);
        if (!tall) continue;
        tile_store(2, out + SPAN_TILES * ONE, 64);
        tile_store(3, out + (SPAN_TILES + 1) * ONE, 64);
    }
}

/* Weights of those keys times their values at 32 dimensions, or 16: into rows that are `stride` floats apart. */
INLINE void outputs_of(const int split, const int tall, const int wide, const struct room *room, const uint8_t *values,
                       uint32_t from, uint32_t to, float *out)
{
    const size_t step = split ? 4 * ONE : 2 * ONE, stride = room->part * sizeof(float);
    no_sums();
    for (uint32_t b = from; b < to; b++)
        products(split, tall, wide, room->scores + 2 * b * ONE, SPAN_TILES * ONE, ONE, values + b * step);
    tile_store(0, out, stride);
    if (wide) tile_store(1, out + TILE, stride);
    if (!tall) return;
    tile_store(2, out + TILE * room->part, stride);
    if (wide) tile_store(3, out + TILE * room->part + TILE, stride);
}

/* Sixteen pairs: each one's last key and first, neither of which comes before those of the pair before. */
struct sixteen {
    uint32_t first, pairs; /* those past the last are as the last */
    int64_t last[TILE], lowest[TILE];
};

static struct sixteen sixteen_of(const struct attention *a, uint32_t first, uint32_t left)
{
    struct sixteen p = {.first = first, .pairs = left < TILE ? left : TILE};
    for (uint32_t i = 0; i < TILE; i++) {
        p.last[i] = last_key(a, first + (i < p.pairs ? i : p.pairs - 1));
        p.lowest[i] = first_key(a, p.last[i]);
    }
    return p;
}

static void soften(const struct attention *a, uint8_t *tile)
{
    for (uint32_t i = 0; i < TILE; i++)
        v_store(tile + i * 64, a->cap * LOG2_E * v_tanh(v_load(tile + i * 64) * (1.0f / a->cap)));
}

/* Scores of sixteen keys from `key` on become less, the more the further back a key lies. */
static void fall(const struct attention *a, uint32_t head, const struct sixteen *p, int64_t key, uint8_t *tile)
{
    const uint32_t shared = a->n_head / a->n_head_kv;
    const vf count = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (uint32_t i = 0; i < p->pairs; i++) {
        const float slope = a->slopes[head * shared + (p->first + i) % shared] * LOG2_E;
        const vf ahead = count + (float)(int32_t)(key - p->last[i]);
        v_store(tile + i * 64, v_load(tile + i * 64) + slope * ahead);
    }
}

/* Scores of keys that a pair does not see become HIDDEN. */
static void hide(const struct sixteen *p, int64_t key, uint8_t *tile)
{
    for (uint32_t i = 0; i < TILE; i++) {
        const int64_t after = p->last[i] + 1 - key, before = p->lowest[i] - key;
        uint32_t seen = after <= 0 ? 0 : after < TILE ? (1u << after) - 1 : 0xffff;
        if (before > 0) seen &= before < TILE ? 0xffffu << before : 0;
        const __m512 low = _mm512_set1_ps(HIDDEN);
        _mm512_store_ps(tile + i * 64, _mm512_mask_load_ps(low, (__mmask16)seen, tile + i * 64));
    }
}

/* All that happens to scores before they become weights. */
static void alter(const struct attention *a, uint32_t head, const struct sixteen *p, int64_t start, uint32_t from,
                  uint32_t to, uint32_t gaps, uint8_t *scores)
{
    for (uint32_t j = from; j < to; j++) {
        const int64_t key = start + j * TILE;
        uint8_t *tile = scores + j * ONE;
        if (gaps >> j & 1) {
            for (uint32_t i = 0; i < TILE; i++) v_store(tile + i * 64, v_set(HIDDEN));
            continue;
        }
        if (a->cap != 0) soften(a, tile);
        if (a->slopes) fall(a, head, p, key, tile);
        if (key + TILE - 1 > p->last[0] || key < p->lowest[TILE - 1]) hide(p, key, tile);
    }
}

/* 2^x for x <= 0, and 0 for HIDDEN: the remainder's power by a minimax polynomial, of degree 3 where 8 bits are left of it. */
INLINE vf power(const int split, vf x)
{
    const vf magic = v_set(12582912.0f), t = x + magic, n = t - magic, r = x - n; /* see v_exp2 */
    vf p = v_set(split ? 0.00132647273f : 0.0551716672f);
    if (split) {
        p = v_fma(p, r, v_set(0.00967151299f));
        p = v_fma(p, r, v_set(0.0555073358f));
    }
    p = v_fma(p, r, v_set(split ? 0.240222424f : 0.242611122f));
    p = v_fma(p, r, v_set(split ? 0.693147004f : 0.693260986f));
    p = v_fma(p, r, v_set(split ? 1.0f : 0.999928074f));
    return (vf)_mm512_scalef_ps((__m512)p, (__m512)n);
}

#define AT_ONCE 8 /* rows whose maxima and sums are in registers */

/* Weights of tiles [from, to), which are whole blocks, in their places: 32 keys in the first tile of a block and, with
 * `split`, what rounding has left of them in the second. Each row's largest score and the sum of its weights go into its
 * part. */
INLINE void weigh(const int split, uint8_t *scores, uint32_t from, uint32_t to, const struct room *room, float *parts)
{
    for (uint32_t first = 0; first < TILE; first += AT_ONCE) {
        uint8_t *rows = scores + first * 64;
        vf top[AT_ONCE], sum[AT_ONCE];
        float most[AT_ONCE];
        UNROLL_FOR (int i = 0; i < AT_ONCE; i++) {
            top[i] = v_set(HIDDEN);
            sum[i] = (vf){0};
        }
        for (uint32_t j = from; j < to; j++)
            UNROLL_FOR (int i = 0; i < AT_ONCE; i++) top[i] = v_max(top[i], v_load(rows + j * ONE + i * 64));
        UNROLL_FOR (int i = 0; i < AT_ONCE; i++) {
            const float highest = v_top(top[i]);
            parts[(first + (uint32_t)i) * room->part + room->part - TILE] = highest;
            most[i] = highest == HIDDEN ? 0 : highest; /* it sees nothing: all weights are zero */
        }
        for (uint32_t j = from; j < to; j += 2)
            UNROLL_FOR (int i = 0; i < AT_ONCE; i++) {
                uint8_t *at = rows + j * ONE + i * 64;
                const vf a = power(split, v_load(at) - most[i]), b = power(split, v_load(at + ONE) - most[i]);
                sum[i] += a + b;
                put_row(split, at, (__m512)a, (__m512)b, ONE);
            }
        UNROLL_FOR (int i = 0; i < AT_ONCE; i++)
            parts[(first + (uint32_t)i) * room->part + room->part - TILE + 1] = v_sum(sum[i]);
    }
}

/* What blocks [from, to) of a span leave of 32 pairs, or of 16. */
INLINE void span_of(const int split, const int tall, const struct attention *a, uint32_t head, const struct sixteen *p,
                    int64_t start, uint32_t from, uint32_t to, uint32_t gaps, const struct room *room,
                    const uint8_t *queries, float *parts)
{
    scores_of(split, tall, room, queries, from, to);
    for (uint32_t i = 0; i < 1 + (uint32_t)tall; i++) {
        uint8_t *scores = room->scores + i * SPAN_TILES * ONE;
        alter(a, head, &p[i], start, 2 * from, 2 * to, gaps, scores);
        weigh(split, scores, 2 * from, 2 * to, room, parts + i * TILE * room->part);
    }
    const size_t step = split ? 4 * ONE : 2 * ONE;
    for (uint32_t d = 0; d < a->layout.v_pad; d += SIDE) {
        const uint8_t *values = room->values + d / SIDE * (SPAN / SIDE) * step;
        if (d + TILE < a->layout.v_pad) outputs_of(split, tall, 1, room, values, from, to, parts + d);
        else outputs_of(split, tall, 0, room, values, from, to, parts + d);
    }
}

#define SPAN_OF(NAME, SPLIT, TALL)                                                                                     \
    static __attribute__((noinline)) void NAME(const struct attention *a, uint32_t head, const struct sixteen *p,      \
                                               int64_t start, uint32_t from, uint32_t to, uint32_t gaps,               \
                                               const struct room *room, const uint8_t *queries, float *parts)          \
    {                                                                                                                  \
        span_of(SPLIT, TALL, a, head, p, start, from, to, gaps, room, queries, parts);                                 \
    }

SPAN_OF(short_rounded, 0, 0)
SPAN_OF(tall_rounded, 0, 1)
SPAN_OF(short_split, 1, 0)
SPAN_OF(tall_split, 1, 1)

static void (*const SPANS[2][2])(const struct attention *, uint32_t, const struct sixteen *, int64_t, uint32_t,
                                 uint32_t, uint32_t, const struct room *, const uint8_t *,
                                 float *) = {{short_rounded, tall_rounded}, {short_split, tall_split}};

/* Pairs [first, first + m) over spans [begin, end): into room->sums. */
static void attend_spans(const struct attention *a, uint32_t head, uint32_t first, uint32_t m, int64_t begin,
                         int64_t end, const struct room *room)
{
    const struct kv_layout *l = &a->layout;
    const int64_t lowest = first_key(a, last_key(a, first)), stop = last_key(a, first + m - 1) + 1;
    struct tile_shapes shapes = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        shapes.row_bytes[i] = 64;
        shapes.rows[i] = 16;
    }
    tile_shape(&shapes);
    for (uint32_t i = 0; i < m; i++) room->sums[i * room->part + l->v_pad + 1] = 0; /* nothing was seen yet */
    pack_queries(a, head, first, m, room);
    for (int64_t span = begin; span < end; span++) {
        const int64_t start = span * SPAN;
        if (stop <= start || lowest >= start + SPAN) continue;
        const uint32_t all_from = lowest <= start ? 0 : (uint32_t)(lowest - start) / SIDE;
        const uint32_t all_to = stop >= start + SPAN ? SPAN / SIDE : (uint32_t)(stop - start + SIDE - 1) / SIDE;
        const uint32_t gaps = pack_span(a, head, start, 2 * all_from, 2 * all_to, room);
        for (uint32_t i = 0; i < m; i += SIDE) {
            const uint32_t left = m - i, tall = left > TILE;
            struct sixteen p[2] = {sixteen_of(a, first + i, left)};
            if (tall) p[1] = sixteen_of(a, first + i + TILE, left - TILE);
            const int64_t low = p[0].lowest[0], high = p[tall].last[TILE - 1] + 1;
            if (high <= start || low >= start + SPAN) continue;
            const int begun = low < start && span > begin; /* whoever has seen nothing yet has no sum */
            float *parts = room->sums + i * room->part;
            const uint32_t from = low <= start ? 0 : (uint32_t)(low - start) / SIDE;
            const uint32_t to = high >= start + SPAN ? SPAN / SIDE : (uint32_t)(high - start + SIDE - 1) / SIDE;
            SPANS[is_split(a)][tall](a, head, p, start, from, to, gaps, room,
                                     room->queries + i / SIDE * room->k_steps * room->step, begun ? room->one : parts);
            for (uint32_t j = 0; begun && j < SIDE && j < left; j++)
                join_part(parts + j * room->part, room->one + j * room->part, l->v_pad);
        }
    }
    tile_release();
}

static void attend(const struct attention *a, uint32_t head, uint32_t first, uint32_t m, uint8_t *scratch)
{
    const struct room room = lay_out(&a->layout, is_split(a), m, scratch);
    const int64_t stop = last_key(a, first + m - 1) + 1;
    attend_spans(a, head, first, m, 0, (stop + SPAN - 1) / SPAN, &room);
    for (uint32_t i = 0; i < m; i++) finish_part(a, head, first + i, room.sums + i * room.part);
}

static void attend_span(const struct attention *a, uint32_t head, uint32_t first, uint32_t m, uint64_t span,
                        float *parts, uint8_t *scratch)
{
    struct room room = lay_out(&a->layout, is_split(a), m, scratch);
    attend_spans(a, head, first, m, (int64_t)span, (int64_t)span + 1, &room);
    memcpy(parts, room.sums, m * room.part * sizeof(float));
}

extern const struct many_pairs sis_pairs_amx;
const struct many_pairs sis_pairs_amx = {
    .from = FROM,
    .most = MOST,
    .scratch_bytes = scratch_bytes,
    .attend = attend,
    .attend_span = attend_span,
};
