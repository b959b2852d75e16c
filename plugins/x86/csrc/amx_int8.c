/* Few rows at once with AMX, to the bits of the tile functions: products of bytes are exact, each group of columns has sums
 * of its own, and floats are added in the same order. While the products of some groups run, the weights of the next become
 * bytes and the sums of the last floats: all in turns of four groups, of which each is expanded, multiplied, kept and added,
 * a turn apart. */
#include "zmm.h"
#define SIGNED_WEIGHTS 1
#include "kind_blocks.inc"
#include "ternary.h"
#include "tiles.h"

#define SIDE 16    /* rows of activations of a tile */
#define FROM 13    /* rows: where those of avx512_vnni read weights twice */
#define MOST 64    /* rows that a unit takes: their activations stay in the second-level cache */
#define AHEAD 1024 /* bytes of weights that are asked for ahead: more than that is slower */
#define AT_ONCE 4  /* groups of a turn: each has a tile of sums */

static const struct ahead WEIGHTS_AHEAD = {1, AHEAD, 0};

/* Activations: [rows / 16][k / 32]. Rows past the last have scales of zero: what they give is not stored, but numbers of no
 * meaning may be slow ones. */
struct x_block {
    int8_t q[SIDE][BLOCK];
    float d[SIDE], minus_ds[SIDE], minus_ds16[2][SIDE]; /* as in q8_block */
};

/* Of two turns. */
struct scratch {
    uint8_t weights[2][AT_ONCE * 8 * 64];
    int32_t sums[2][AT_ONCE][SIDE * TILE];
};

static size_t x_bytes(uint32_t rows, size_t k, uint32_t form)
{
    (void)form;
    return (rows + SIDE - 1) / SIDE * (k / BLOCK) * sizeof(struct x_block);
}

static size_t scratch_bytes(uint32_t rows, size_t k, uint32_t form)
{
    (void)rows, (void)k, (void)form;
    return sizeof(struct scratch);
}

/* Chunks of about equal size. */
static uint32_t unit_rows(uint32_t rows, size_t k, uint32_t form)
{
    (void)k, (void)form;
    const uint32_t chunks = (rows + MOST - 1) / MOST;
    return ((rows + chunks - 1) / chunks + SIDE - 1) / SIDE * SIDE;
}

static void prepare(const struct unprepared *u, void *out)
{
    const float *x = u->x;
    for (uint32_t row = u->first; row < u->first + u->m; row++, x += u->stride) {
        const uint32_t r = row % SIDE, unused = row + 1 == u->rows ? SIDE - 1 - r : 0;
        struct x_block *o = (struct x_block *)out + row / SIDE * (u->k / BLOCK) + u->column / BLOCK;
        for (size_t b = 0; b < u->n / BLOCK; b++, o++) {
            struct q8_block block;
            prepare_block(x + b * BLOCK, &block);
            memcpy(o->q[r], block.q, BLOCK);
            o->d[r] = block.d;
            o->minus_ds[r] = block.minus_ds;
            for (int j = 0; j < 2; j++) o->minus_ds16[j][r] = block.minus_ds16[j];
            if (!unused) continue;
            float *const numbers[] = {o->d, o->minus_ds, o->minus_ds16[0], o->minus_ds16[1]};
            for (int j = 0; j < 4; j++) memset(numbers[j] + r + 1, 0, unused * sizeof(float));
        }
    }
}

INLINE vc look_up(vc table, vc codes) { return (vc)_mm512_shuffle_epi8((__m512i)table, (__m512i)codes); }

/* Bits of bytes as rows of a matrix, from the upper bit of the result to the lower, times the bytes. */
#define MATRIX(A, B, C, D, E, F, G, H)                                                                                 \
    ((uint64_t)(A) | (uint64_t)(B) << 8 | (uint64_t)(C) << 16 | (uint64_t)(D) << 24 | (uint64_t)(E) << 32 |            \
     (uint64_t)(F) << 40 | (uint64_t)(G) << 48 | (uint64_t)(H) << 56)

/* Two quads of signed codes of four bits, by an instruction each: plus eight, they lack eight where their upper bit is zero,
 * so the bits above it are its opposite. */
INLINE void expand_signed_nibbles(const uint8_t *q, uint8_t *out)
{
    const __m512i low = _mm512_set1_epi64((long long)MATRIX(8, 8, 8, 8, 8, 4, 2, 1));
    const __m512i high = _mm512_set1_epi64((long long)MATRIX(128, 128, 128, 128, 128, 64, 32, 16));
    UNROLL_FOR (int j = 0; j < 4; j++) {
        const __m512i v = (__m512i)codes_from(q + 64 * j, WEIGHTS_AHEAD);
        _mm512_store_si512(out + 128 * j, _mm512_gf2p8affine_epi64_epi8(v, low, 0xf8));
        _mm512_store_si512(out + 128 * j + 64, _mm512_gf2p8affine_epi64_epi8(v, high, 0xf8));
    }
}

/* A block of weights as signed bytes. */
INLINE void expand(const struct sis_kind kind, struct block_at at, const vc *tables, uint8_t *out)
{
    const uint8_t *codes = at.codes;
    if (kind.bits == 4 && kind.codes == SIS_SIGNED) {
        expand_signed_nibbles(codes, out);
        return;
    }
    struct shared shared = {0};
    if (kind.codes == SIS_TERNARY)
        for (int i = 0; i < 128; i += 64) ask(share_of_codes(kind, at) + i, WEIGHTS_AHEAD);
    UNROLL_FOR (int i = 0; i < 8; i++) {
        vc quad = kind.codes == SIS_TERNARY ? (vc)ternary_quad(codes, at.number, i)
                                            : next_quad(kind, codes, 0, i, WEIGHTS_AHEAD, tables, &shared);
        quad -= (uint8_t)code_offset(kind);
        _mm512_store_si512(out + 64 * i, (__m512i)quad);
    }
}

INLINE vf sums_of(const int32_t *sums, int r) { return (vf)_mm512_cvtepi32_ps(_mm512_load_si512(sums + r * TILE)); }

/* acc[r][16] += sums of a group, scaled. */
INLINE void add(const struct sis_kind kind, const int R, struct block_at at, int g, const struct x_block *x,
                const int32_t *sums, vf *acc)
{
    const uint8_t *s = at.scales + (size_t)g * scale_bytes(kind);
    const vf super = has_supers(kind) ? super_scales_at(at.unit, 0, 0) : (vf){0};
    const vf scale = load_scales(kind, s, super, 0, 0);
    UNROLL_FOR (int r = 0; r < R; r++) acc[r] = v_fma(sums_of(sums, r), scale * v_set(x->d[r]), acc[r]);
    if (!has_minima(kind)) return;
    const vf super_minimum = has_supers(kind) ? super_scales_at(at.unit, 0, 1) : (vf){0};
    const vf minimum = load_scales(kind, s + minima_behind(kind), super_minimum, 0, 1);
    UNROLL_FOR (int r = 0; r < R; r++) acc[r] = v_fma(minimum, v_set(MINUS_OF(n_groups(kind), x, g)[r]), acc[r]);
}

/* The same of kinds that are added by units: of a block, once the sums of its last group are there. */
INLINE void add_whole(const struct sis_kind kind, const int R, struct block_at at, int g, const struct x_block *x,
                      const int32_t *sums, vf *total)
{
    if (g + 1 < n_groups(kind)) return;
    const uint8_t *s = at.scales + (size_t)g * scale_bytes(kind);
    const vf scale = load_whole(kind, s, 0, 0);
    vf before = {0};
    UNROLL_FOR (int r = 0; r < R; r++) {
        if (g) before = sums_of(sums - SIDE * TILE, r) * load_whole(kind, s - TILE, 0, 0);
        total[r] = v_fma(add_scaled(kind, g, sums_of(sums, r), scale, &before), v_set(x->d[r]), total[r]);
    }
}

/* acc[r][16] += what the unit that begins with a block has come to. */
INLINE void add_unit(const struct sis_kind kind, const int R, struct block_at at, const struct x_block *x, vf *total,
                     vf *acc)
{
    const int groups = n_groups(kind);
    add_supers(1, R, &at, 0, total, acc);
    UNROLL_FOR (int r = 0; r < R; r++) total[r] = (vf){0};
    if (!has_minima(kind)) return;
    for (int b = 0; b < SUPER / BLOCK; b++, x++, at.scales += scales_bytes(kind))
        UNROLL_FOR (int g = 0; g < groups; g++) {
            const vf minimum = load_whole(kind, at.scales + minima_behind(kind) + g * TILE, 0, 1);
            UNROLL_FOR (int r = 0; r < R; r++) total[r] = v_fma(minimum, v_set(MINUS_OF(groups, x, g)[r]), total[r]);
        }
    add_supers(1, R, &at, 1, total, acc);
    UNROLL_FOR (int r = 0; r < R; r++) total[r] = (vf){0};
}

/* Groups [first, first + n) of a tile, four or what is left. */
struct turn {
    const uint8_t *tile;
    size_t first, n;
};

INLINE void expand_turn(const struct sis_kind kind, const struct turn *turn, uint8_t *out)
{
    const size_t groups = (size_t)n_groups(kind);
    vc tables[4];
    if (!turn->n) return; /* there is no tile behind the last, nor a table of it */
    load_tables(kind, turn->tile, 0, tables);
    UNROLL_FOR (size_t i = 0; i < AT_ONCE; i += groups, out += 8 * 64) {
        if (i >= turn->n) return;
        const struct block_at at = block_at(kind, turn->tile, (turn->first + i) / groups);
        ask(at.scales, WEIGHTS_AHEAD);
        if (kind.bits < 8) expand(kind, at, tables, out);
        else
            for (int j = 0; j < 8; j++) ask(at.codes + 64 * j, WEIGHTS_AHEAD);
    }
}

/* Keeps what tile NUMBER holds of the turn before, and begins its sums anew, by way of tiles X and W. */
#define KEEP_AND_MULTIPLY(NUMBER, X, W)                                                                                \
    do {                                                                                                               \
        if (NUMBER < kept->n) tile_store(NUMBER, sums[NUMBER], 64);                                                    \
        if (NUMBER >= turn->n) break;                                                                                  \
        const size_t group = turn->first + NUMBER, b = group / groups;                                                 \
        const int8_t *x_at = x[b].q[0] + group % groups * columns;                                                     \
        const uint8_t *w_at = kind.bits < 8 ? bytes + NUMBER * 16 * columns                                            \
                                            : block_at(kind, turn->tile, b).codes + group % groups * 16 * columns;     \
        tile_zero(NUMBER);                                                                                             \
        tile_load(X, x_at, BLOCK);                                                                                     \
        tile_load(W, w_at, 64);                                                                                        \
        tile_multiply_bytes(NUMBER, X, W);                                                                             \
    } while (0)

/* Of kinds that are added by units to `total`, which becomes part of acc at the end of a unit: turns are parts of units. */
INLINE void add_turn(const struct sis_kind kind, const int R, const struct turn *turn, size_t i,
                     const struct x_block *x, const int32_t *sums, vf *total, vf *acc)
{
    const size_t groups = (size_t)n_groups(kind), group = turn->first + i, b = group / groups;
    if (i >= turn->n) return;
    const struct block_at at = block_at(kind, turn->tile, b);
    const int g = (int)(group % groups);
    if (!by_units(kind)) {
        add(kind, R, at, g, x + b, sums, acc);
        return;
    }
    add_whole(kind, R, at, g, x + b, sums, total);
    const size_t n = unit_blocks(kind);
    if (i + 1 == AT_ONCE && (b + 1) % n == 0 && (size_t)g + 1 == groups)
        add_unit(kind, R, block_at(kind, turn->tile, b + 1 - n), x + b + 1 - n, total, acc);
}

/* Rows [row, row + n_rows) of the result, with the weights of tile t. */
static void write_sums(const struct many *job, const vf *acc, uint32_t row, uint32_t n_rows, size_t t)
{
    const size_t left = job->n - t * TILE;
    const __mmask16 mask = left < TILE ? (__mmask16)((1u << left) - 1) : 0xffff;
    const __m512 bias = job->bias ? _mm512_maskz_loadu_ps(mask, job->bias + t * TILE) : _mm512_setzero_ps();
    for (uint32_t r = 0; r < n_rows; r++) {
        float *y = job->y + (size_t)(row + r) * job->stride + t * TILE;
        __m512 v = (__m512)acc[r];
        if (job->bias) v = _mm512_add_ps(v, bias);
        if (job->add) v = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), v);
        _mm512_mask_storeu_ps(y, mask, v);
    }
}

/* The tiles of a unit times rows [row, row + n_rows), R at most, which begin at x. */
INLINE void multiply_tiles(const struct sis_kind kind, const int R, const struct many *job, const struct x_block *x,
                           uint32_t row, uint32_t n_rows)
{
    const size_t groups = (size_t)n_groups(kind), columns = group_columns(kind), n = job->k / BLOCK * groups;
    struct scratch *scratch = (struct scratch *)(void *)job->scratch;
    struct turn turns[4] = {{.n = 0}}, next = {.tile = job->tiles};
    const uint8_t *stop = job->tiles + (job->n + TILE - 1) / TILE * job->tile_bytes;
    size_t t = 0;
    vf acc[SIDE], total[SIDE];
    UNROLL_FOR (int r = 0; r < R; r++) acc[r] = total[r] = (vf){0};
    for (uint32_t i = 0; next.tile < stop || turns[(i + 1) % 4].n || turns[(i + 2) % 4].n || turns[(i + 3) % 4].n;
         i++) {
        const struct turn *turn = &turns[(i + 3) % 4], *kept = &turns[(i + 2) % 4], *added = &turns[(i + 1) % 4];
        struct turn *expanded = &turns[i % 4];
        next.n = next.tile == stop ? 0 : n - next.first < AT_ONCE ? n - next.first : AT_ONCE;
        *expanded = next;
        next.first += next.n;
        if (next.n && next.first == n) next = (struct turn){.tile = next.tile + job->tile_bytes};
        expand_turn(kind, expanded, scratch->weights[i % 2]);
        const uint8_t *bytes = scratch->weights[(i + 1) % 2];
        int32_t (*const sums)[SIDE * TILE] = scratch->sums[i % 2],
                                     (*const last)[SIDE * TILE] = scratch->sums[(i + 1) % 2];
        KEEP_AND_MULTIPLY(0, 4, 6);
        add_turn(kind, R, added, 0, x, last[0], total, acc);
        KEEP_AND_MULTIPLY(1, 5, 7);
        add_turn(kind, R, added, 1, x, last[1], total, acc);
        KEEP_AND_MULTIPLY(2, 4, 6);
        add_turn(kind, R, added, 2, x, last[2], total, acc);
        KEEP_AND_MULTIPLY(3, 5, 7);
        add_turn(kind, R, added, 3, x, last[3], total, acc);
        if (!added->n || added->first + added->n < n) continue;
        write_sums(job, acc, row, n_rows, t++);
        UNROLL_FOR (int r = 0; r < R; r++) acc[r] = (vf){0};
    }
}

/* All rows of a tile are stored, those past the last too: to load what a store has passed by is slow. */
INLINE void multiply_job(const struct sis_kind kind, const struct many *job)
{
    const size_t columns = group_columns(kind);
    struct tile_shapes shapes = {.palette = 1};
    for (uint32_t done = 0, n; done < job->rows; done += n) {
        n = job->rows - done < SIDE ? job->rows - done : SIDE;
        const size_t side = n > SIDE / 2 ? SIDE : SIDE / 2;
        if (side != shapes.rows[0]) {
            for (int i = 0; i < 8; i++) {
                shapes.rows[i] = (uint8_t)(i < 6 ? side : columns / 4);
                shapes.row_bytes[i] = (uint16_t)(i == 4 || i == 5 ? columns : 64);
            }
            tile_shape(&shapes);
        }
        const uint32_t row = job->first + done;
        const struct x_block *x = (const struct x_block *)job->x + row / SIDE * (job->k / BLOCK);
        if (side == SIDE) multiply_tiles(kind, SIDE, job, x, row, n);
        else multiply_tiles(kind, SIDE / 2, job, x, row, n);
    }
    tile_release();
}

#define MULTIPLY_KIND(FORMAT, KIND, job) multiply_job(KIND, job)
#include "kind_jobs.inc"

static void multiply(const struct many *job)
{
    static void (*const JOBS[SIS_DECODED])(const struct many *) = {KIND_JOBS};
    JOBS[job->format](job);
}

extern const struct many_rows sis_few_amx;
const struct many_rows sis_few_amx = {
    .from = FROM,
    .same_bits = 1,
    .forms = SIS_Q8,
    .units = 1,
    .x_bytes = x_bytes,
    .scratch_bytes = scratch_bytes,
    .unit_rows = unit_rows,
    .prepare = prepare,
    .multiply = multiply,
};
