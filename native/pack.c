/* Tiles of sixteen rows: their sizes, and how they are made of a weight's rows; kinds.h and pack.inc have the layouts. */
#include "kinds.h"
#include "team.h"
#include <string.h>

#define STRETCH 32 /* tiles whose rows are mapped at once: a fault for every few pages takes four times as long */
#define NEAR (SIS_PIECE / 8)
#define SEVERAL 4

uint32_t sis_kind(uint32_t format, struct sis_kind *kind)
{
    *kind = kind_of(format);
    return kind->bits != 0;
}

size_t sis_one_tile_bytes(uint32_t format, size_t n_cols)
{
    const struct sis_kind kind = kind_of(format);
    size_t bytes;
    if (kind.bits) {
        const size_t n_blocks = n_cols / BLOCK, n = unit_blocks(kind);
        if (n_cols % BLOCK || (has_whole_units(kind) && n_blocks % n)) return 0;
        bytes = n_blocks / n * unit_bytes(kind) + (n_blocks ? table_bytes(kind) : 0);
        if (n_blocks % n) bytes += before_codes(kind) + n_blocks % n * codes_bytes(kind);
    } else if (format <= SIS_BF16 || format == SIS_DECODED)
        bytes = n_cols * TILE * (format == SIS_F16 || format == SIS_BF16 ? 2 : 4);
    else return 0;
    return (bytes + 63) / 64 * 64;
}

uint64_t sis_tile_bytes(uint32_t format, uint64_t n_rows, uint64_t n_cols)
{
    if (format == SIS_DECODED) return 0; /* its tiles live in the scratch of a thread */
    return (n_rows + TILE - 1) / TILE * sis_one_tile_bytes(format, n_cols);
}

/* Tile number `tile` of a weight whose `raw` is set. `scratch` holds TILE rows of floats, for SIS_DECODED. */
void sis_pack_tile(const struct sis_weight *weight, size_t tile, uint8_t *out, float *scratch)
{
    size_t first = tile * TILE, left = weight->n_rows - first, n_cols = weight->n_cols, stride = weight->row_bytes;
    uint32_t n = left < TILE ? (uint32_t)left : TILE;
    const uint8_t *rows = weight->raw + first * stride;
    if (weight->format == SIS_DECODED) {
        weight->decode(rows, stride, n, n_cols, scratch);
        rows = (const uint8_t *)scratch;
        stride = n_cols * sizeof *scratch;
    }
    if (n < TILE || n_cols / BLOCK % 2 || n_cols % 2) memset(out, 0, sis_one_tile_bytes(weight->format, n_cols));
    sis_kernels()->pack(weight->format, rows, stride, n, n_cols, out);
}

enum { NOT_MADE, BROUGHT, BEING_MADE, MADE = SIS_MADE };

/* Give back the pages of the stretch that a tile is of, once all its tiles are made: in a stack of experts there may be
 * some that no row chooses, so the whole weight may never be. */
static void give_back_stretch(const struct sis_weight *w, size_t tile)
{
    const size_t first = tile / STRETCH * STRETCH, rows_left = w->n_rows - first * TILE,
                 rows = rows_left < STRETCH * TILE ? rows_left : STRETCH * TILE;
    for (size_t i = first; i < first + (rows + TILE - 1) / TILE; i++)
        if (__atomic_load_n(&w->place->states[i], __ATOMIC_RELAXED) != MADE) return;
    sis_give_back(w->raw + first * TILE * w->row_bytes, rows * w->row_bytes);
}

/* Whether a tile lies in its place: one that nobody has begun is made there first. */
static int in_place(const struct sis_weight *w, size_t tile, size_t bytes)
{
    struct sis_place *place = w->place;
    uint8_t state = __atomic_load_n(&place->states[tile], __ATOMIC_ACQUIRE);
    if (state >= BEING_MADE ||
        !__atomic_compare_exchange_n(&place->states[tile], &state, BEING_MADE, 0, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE))
        return state == MADE;
    sis_pack_tile(w, tile, place->tiles + tile * bytes, NULL);
    __atomic_store_n(&place->states[tile], MADE, __ATOMIC_RELEASE);
    /* Acquires as well: who counts the last tile of a stretch sees that the others are made. */
    const uint32_t n_made = __atomic_add_fetch(&place->n_made, 1, __ATOMIC_ACQ_REL);
    if (!place->mapped) return 1;
    if (n_made == (w->n_rows + TILE - 1) / TILE) sis_give_back(w->raw, w->n_rows * w->row_bytes);
    else give_back_stretch(w, tile);
    return 1;
}

/* Map the rows of a stretch that begins among these tiles, once. */
static void bring(const struct sis_weight *w, size_t t, size_t n)
{
    const size_t tile = (t + STRETCH - 1) / STRETCH * STRETCH;
    if (!w->place || !w->place->mapped || tile >= t + n) return;
    uint8_t state = NOT_MADE;
    if (!__atomic_compare_exchange_n(&w->place->states[tile], &state, BROUGHT, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        return;
    const size_t left = w->n_rows - tile * TILE, rows = left < STRETCH * TILE ? left : STRETCH * TILE;
    sis_bring(w->raw + tile * TILE * w->row_bytes, rows * w->row_bytes);
}

/* Whether a piece of memory may be taken for what begins so many bytes behind its border. The time that it takes is saved
 * up: it may be many times what making tiles takes, where memory comes from the host of a virtual machine. Pieces are begun
 * where they begin, so that the tiles which follow fill them: the rows of a piece that holds a few tiles are in memory
 * twice. The border may lie in an expert that no row chooses, so whoever has saved for several pieces begins any of a
 * stack. */
static int may_take(const struct sis_place *place, size_t behind)
{
    const int64_t saved = __atomic_load_n(place->saved, __ATOMIC_RELAXED);
    if (saved <= 0) return 0;
    return behind <= NEAR ||
           (place->stack && (uint64_t)saved > SEVERAL * __atomic_load_n(&place->memory->cost, __ATOMIC_RELAXED));
}

/* Make the tiles that lie wholly in a piece, and give their rows back. */
static void fill_piece(const struct sis_weight *w, size_t at, size_t bytes)
{
    const struct sis_place *place = w->place;
    const size_t n_tiles = (w->n_rows + TILE - 1) / TILE, begins = (size_t)(place->tiles - place->memory->base);
    const size_t first = at > begins ? (at - begins + bytes - 1) / bytes : 0, end = (at + SIS_PIECE - begins) / bytes;
    const size_t stop = end < n_tiles ? end : n_tiles;
    int made = 1;
    for (size_t i = first; i < stop; i++) made &= in_place(w, i, bytes);
    if (!made || !place->mapped || first >= stop) return;
    const size_t last = stop * TILE < w->n_rows ? stop * TILE : w->n_rows;
    sis_give_back(w->raw + first * TILE * w->row_bytes, (last - first * TILE) * w->row_bytes);
}

/* Of a stack of experts all that fits is made at once: others choose the neighbours who knows when. */
static void take_piece(const struct sis_weight *w, size_t piece, size_t bytes)
{
    const struct sis_place *place = w->place;
    struct sis_memory *memory = place->memory;
    const size_t at = piece * SIS_PIECE, left = memory->bytes - at;
    if (__atomic_exchange_n(&memory->taken[piece], 1, __ATOMIC_RELAXED)) return;
    const uint64_t start = team_now();
    sis_touch(memory->base + at, left < SIS_PIECE ? left : SIS_PIECE);
    const uint64_t cost = team_now() - start;
    __atomic_store_n(&memory->cost, cost, __ATOMIC_RELAXED);
    if (place->stack) fill_piece(w, at, bytes);
    __atomic_sub_fetch(place->saved, (int64_t)(team_now() - start), __ATOMIC_RELAXED);
}

/* Whether tiles may stay: there is memory where they lie, or time to take some. */
static int has_room(const struct sis_weight *w, size_t t, size_t n, size_t bytes)
{
    const struct sis_place *place = w->place;
    const struct sis_memory *memory = place->memory;
    size_t begun = 0;
    for (size_t i = t; i < t + n; i++) begun += __atomic_load_n(&place->states[i], __ATOMIC_RELAXED) >= BEING_MADE;
    if (begun == n || !place->saved) return 1;
    const size_t first = (size_t)(place->tiles - memory->base) + t * bytes, end = first + n * bytes;
    for (size_t piece = first / SIS_PIECE, at; (at = piece * SIS_PIECE) < end; piece++) {
        if (__atomic_load_n(&memory->taken[piece], __ATOMIC_RELAXED)) continue;
        if (!may_take(place, first > at ? first - at : 0)) return 0;
        take_piece(w, piece, bytes);
    }
    return 1;
}

/* Tiles that do not stay. What they cost is what keeping them would have been worth. */
static void make_in_scratch(const struct sis_weight *w, size_t t, size_t n, size_t bytes, uint8_t *scratch,
                            float *decoded)
{
    int64_t *saved = w->place ? w->place->saved : NULL;
    const uint64_t start = saved ? team_now() : 0;
    for (size_t i = 0; i < n; i++) sis_pack_tile(w, t + i, scratch + i * bytes, decoded);
    if (saved) __atomic_add_fetch(saved, (int64_t)(team_now() - start), __ATOMIC_RELAXED);
}

const uint8_t *sis_tiles_of(const struct sis_weight *w, size_t t, size_t n, uint8_t *scratch, float *decoded)
{
    const size_t bytes = sis_one_tile_bytes(w->format, w->n_cols);
    if (!w->raw) return w->tiles + t * bytes;
    bring(w, t, n);
    int there = w->place && w->place->keep && has_room(w, t, n, bytes);
    for (size_t i = 0; i < n && there; i++) there = in_place(w, t + i, bytes);
    if (there) return w->place->tiles + t * bytes;
    make_in_scratch(w, t, n, bytes, scratch, decoded);
    return scratch;
}

void sis_pack_unpacked_tile(uint32_t format, const struct sis_unpacked *rows, size_t tile, uint8_t *out)
{
    const size_t first = tile * TILE, left = rows->n_rows - first;
    const uint32_t n = left < TILE ? (uint32_t)left : TILE;
    if (n < TILE || rows->n_cols / BLOCK % unit_blocks(kind_of(format)))
        memset(out, 0, sis_one_tile_bytes(format, rows->n_cols));
    sis_kernels()->pack_unpacked(format, rows, first, n, out);
}
