/* Linears: units of a few tiles, each for all rows of the phase or, where many rows are multiplied at once, for some. */
#include "results.h"
#include "run.h"

#define DECODED_ROWS 4   /* rows of a decoded weight at a time */
#define AHEAD (96 << 10) /* bytes: what memory brings while one member does a long row operation */

/* Tiles in a unit, as a power of two. While they serve many groups of rows, a group's activations should serve several
 * tiles; a single group passes over each tile once, and small units let all members end at the same time. */
static uint32_t log_tiles(const struct run *run, int gathered)
{
    const int many = many_in(run, gathered, SIS_Q8) || many_in(run, gathered, SIS_FLOAT);
    return many || run->n_groups[gathered] > 1 ? LOG_TILES : 0;
}

/* What multiplies many rows by this weight at once, or NULL. */
static const struct many_rows *many_of(const struct run *run, const struct sis_op *op, int gathered)
{
    return many_in(run, gathered, form_of(op->weight));
}

/* How many rows a unit takes of a linear that multiplies many at once. */
static uint32_t many_at_once(const struct run *run, const struct sis_op *op, int gathered)
{
    const struct sis_weight *w = op->weight;
    return many_of(run, op, gathered)->unit_rows(run->n_rows[gathered], w->n_cols, form_of(w));
}

/* How much of its share of a phase a member takes at once. Few rows: half, since units are so short that claiming takes
 * a tenth of their time; as much where several units are a job. Tiles that are made for many rows at once: more, since
 * the rows come from afar each time. */
static uint32_t quarters_of(const struct run *run, uint32_t first, uint32_t last, uint32_t log, int gathered)
{
    uint32_t quarters = log == 0 ? 2 : 0;
    for (uint32_t i = first; i < last; i++) {
        const struct sis_op *op = &run->program->ops[i];
        const struct many_rows *many = many_of(run, op, gathered);
        if (many && op->weight->raw) return 3;
        if (many && many->units > 1) quarters = 2;
    }
    return quarters;
}

static uint32_t tile_units(const struct sis_op *op, uint32_t log)
{
    uint64_t tiles = (op->weight->n_rows + TILE - 1) / TILE;
    return (uint32_t)((tiles + (1u << log) - 1) >> log);
}

static uint32_t linear_units(const struct run *run, const struct sis_op *op, uint32_t log, int gathered)
{
    if (op->weight->format == SIS_FOREIGN) return op->weight->linear->parts;
    if (!many_of(run, op, gathered) || op->weight->raw) return tile_units(op, log);
    uint32_t rows = many_at_once(run, op, gathered);
    return tile_units(op, log) * ((run->n_rows[gathered] + rows - 1) / rows);
}

/* acc[tile][m][TILE] is n rows of weights, from row `first` on, times the rows of a group. */
static void write_tiles(const struct run *run, const struct sis_op *op, const struct group_of_rows *g, size_t first,
                        size_t n, const float *acc)
{
    sis_write_results(at(run, op->dst, g->first, op->dst_at) + first, stride_of(run, op->dst), g->m, n, acc,
                      (size_t)g->m * TILE, op->bias ? op->bias + first : NULL, (op->flags & SIS_ADD) != 0);
}

static void foreign_unit(struct run *run, const struct sis_op *op, uint32_t unit, int gathered)
{
    const struct sis_weight *w = op->weight;
    uint64_t n = run->n_rows[gathered];
    struct sis_rows x = {at(run, op->src, 0, op->src_at), n, w->n_cols, stride_of(run, op->src)};
    struct sis_rows y = {at(run, op->dst, 0, op->dst_at), n, w->n_rows, stride_of(run, op->dst)};
    const void *prepared = w->linear->prepare ? run->prepared[op->count] : NULL;
    int32_t error = w->linear->run(w->linear->self, &x, prepared, &y, unit, w->linear->parts);
    if (error) atomic_store(&run->error, error);
}

struct many job_of(const struct run *run, const struct sis_op *op, size_t t, size_t n, uint32_t member)
{
    const struct sis_weight *w = op->weight;
    const size_t left = w->n_rows - t * TILE;
    return (struct many){
        .format = w->format,
        .add = (op->flags & SIS_ADD) != 0,
        .k = w->n_cols,
        .x = run->places[op->count][form_of(w) == SIS_FLOAT],
        .tile_bytes = sis_one_tile_bytes(w->format, w->n_cols),
        .n = left < n * TILE ? left : n * TILE,
        .y = at(run, op->dst, 0, op->dst_at) + t * TILE,
        .stride = stride_of(run, op->dst),
        .bias = op->bias ? op->bias + t * TILE : NULL,
        .scratch = run->scratch + member * run->scratch_bytes,
    };
}

/* Rows [first, first + rows), as far as there are any. */
static void multiply_rows(const struct run *run, const struct sis_op *op, struct many *job, uint32_t first,
                          uint32_t rows, int gathered)
{
    const uint32_t left = run->n_rows[gathered] - first;
    job->first = first;
    job->rows = left < rows ? left : rows;
    many_of(run, op, gathered)->multiply(job);
}

/* Up to `n` units, how many: those side by side are one job. Units run over all tiles for the first rows, then for the
 * next: these rows stay in the second-level cache. */
static uint32_t many_units(const struct run *run, const struct sis_op *op, uint32_t unit, uint32_t n, int gathered,
                           uint32_t member)
{
    const uint32_t rows = many_at_once(run, op, gathered), across = tile_units(op, LOG_TILES), first = unit % across;
    const uint32_t left = across - first < n ? across - first : n, most = many_of(run, op, gathered)->units;
    const uint32_t some = left < most ? left : most;
    const size_t t = (size_t)first << LOG_TILES;
    struct many job = job_of(run, op, t, (size_t)some << LOG_TILES, member);
    job.tiles = op->weight->tiles + t * job.tile_bytes;
    multiply_rows(run, op, &job, unit / across * rows, rows, gathered);
    return some;
}

/* `n` units of a linear of raw rows, in that order too: tiles are made for the first rows, a job's at a time, and still
 * there for the next rows. The rows of the next tiles come from memory while a job is done. */
static void many_raw_units(const struct run *run, const struct sis_op *op, uint32_t unit, uint32_t n, int gathered,
                           uint32_t member)
{
    const struct sis_weight *w = op->weight;
    const uint32_t all = run->n_rows[gathered], rows = many_at_once(run, op, gathered);
    const uint32_t units = many_of(run, op, gathered)->units;
    const uint32_t most = raw_units(w, many_of(run, op, gathered), all, 1);
    const size_t unit_bytes = sis_one_tile_bytes(w->format, w->n_cols) << LOG_TILES;
    const size_t n_tiles = (w->n_rows + TILE - 1) / TILE;
    uint8_t *scratch = run->scratch + member * run->scratch_bytes + run->raw_at;
    float *decoded = (float *)(void *)(scratch + most * unit_bytes);
    const uint8_t *made[RAW_UNITS];
    for (uint32_t some; n; unit += some, n -= some) {
        some = n < most ? n : most;
        uint32_t n_made = 0;
        for (uint32_t first = 0; first < all; first += rows)
            for (uint32_t i = 0, together; i < some; i += together) {
                const size_t t = (size_t)(unit + i) << LOG_TILES;
                for (together = 0; together < units && i + together < some; together++) {
                    const uint32_t next = i + together;
                    const size_t at = (size_t)(unit + next) << LOG_TILES, left = n_tiles - at, its = 1u << LOG_TILES;
                    if (next == n_made)
                        made[n_made++] =
                            sis_tiles_of(w, at, left < its ? left : its, scratch + next * unit_bytes, decoded);
                    if (made[next] != made[i] + together * unit_bytes) break; /* some stay, some do not */
                }
                const size_t tiles = (size_t)together << LOG_TILES, left = n_tiles - t;
                struct many job = job_of(run, op, t, left < tiles ? left : tiles, member);
                job.tiles = made[i];
                if (!first && i + together < n) job.ahead = raw_rows(w, t + tiles, tiles);
                multiply_rows(run, op, &job, first, rows, gathered);
            }
    }
}

/* Rung 2: a few rows at a time, so that they are still in the cache when they have been decoded. */
static void decoded_unit(const struct run *run, const struct sis_op *op, uint32_t unit, uint32_t log, int gathered,
                         uint32_t member)
{
    const struct sis_weight *w = op->weight;
    const size_t stride = stride_of(run, op->src), tiles = (size_t)1 << log;
    size_t first = unit * tiles * TILE, stop = first + tiles * TILE < w->n_rows ? first + tiles * TILE : w->n_rows;
    float acc[MAX_GROUP * TILE], *rows = (float *)(void *)(run->scratch + member * run->scratch_bytes);
    for (size_t n; first < stop; first += n) {
        n = stop - first < DECODED_ROWS ? stop - first : DECODED_ROWS;
        w->decode(w->raw + first * w->row_bytes, w->row_bytes, n, w->n_cols, rows);
        for (uint32_t i = 0; i < run->n_groups[gathered]; i++) {
            const struct group_of_rows *g = &run->groups[gathered][i];
            const float *x = at(run, op->src, g->first, op->src_at);
            run->kernels->dot(rows, (uint32_t)n, x, stride, g->m, w->n_cols, acc);
            write_tiles(run, op, g, first, n, acc);
        }
    }
}

/* The activations of a group as tile functions read them. */
static const void *prepared(const struct run *run, const struct sis_op *op, const struct group_of_rows *g)
{
    return prepared_at(run, op->count, form_of(op->weight), g->first, op->weight->n_cols);
}

/* `n` units of the same linear, the first of which is `unit`. */
static void packed_units(struct run *run, const struct sis_op *op, uint32_t unit, uint32_t n, uint32_t log,
                         int gathered, uint32_t member)
{
    const struct sis_weight *w = op->weight;
    float acc[WRITTEN * MAX_GROUP * TILE] __attribute__((aligned(64)));
    const size_t k = w->n_cols, bytes = sis_one_tile_bytes(w->format, k), n_tiles = (w->n_rows + TILE - 1) / TILE;
    const size_t t = (size_t)unit << log, end = (size_t)(unit + n) << log, stop = end < n_tiles ? end : n_tiles;
    uint8_t *scratch = run->scratch + member * run->scratch_bytes;
    /* Several tiles for each group of rows, so that the rows stay in the first-level cache. */
    const size_t at_once = run->n_groups[gathered] > 1 ? 1u << LOG_TILES : w->raw ? 1 : stop - t;
    for (size_t made = t, some; made < stop; made += some) {
        some = stop - made < at_once ? stop - made : at_once;
        const uint8_t *tiles = sis_tiles_of(w, made, some, scratch, NULL);
        for (uint32_t i = 0; i < run->n_groups[gathered]; i++) {
            const struct group_of_rows *g = &run->groups[gathered][i];
            const void *x = prepared(run, op, g);
            for (size_t j = 0, n; j < some; j += n) {
                n = some - j < WRITTEN ? some - j : WRITTEN;
                sis_multiply_tiles(run->kernels, w->format, tiles + j * bytes, n, x, g->m, k, acc);
                const size_t first = (made + j) * TILE, left = w->n_rows - first;
                write_tiles(run, op, g, first, left < n * TILE ? left : n * TILE, acc);
            }
        }
    }
}

static uint32_t phase_units(const struct run *run, uint32_t first, uint32_t last, uint32_t log, int gathered)
{
    uint32_t n = 0;
    for (uint32_t i = first; i < last; i++) n += linear_units(run, &run->program->ops[i], log, gathered);
    return n;
}

/* The linear of a phase that has this unit, which becomes a unit of that linear. */
static const struct sis_op *linear_of(const struct run *run, uint32_t first, uint32_t log, int gathered, uint32_t *unit)
{
    const struct sis_op *op = &run->program->ops[first];
    for (uint32_t n; *unit >= (n = linear_units(run, op, log, gathered)); op++) *unit -= n;
    return op;
}

struct span linear_ahead(const struct run *run, const struct team *team, uint32_t first, uint32_t last, int gathered,
                         uint32_t member)
{
    const uint32_t log = log_tiles(run, gathered), n = phase_units(run, first, last, log, gathered);
    uint32_t unit = (uint32_t)((uint64_t)n * member / team_size(team));
    if (unit == n) return (struct span){NULL, 0};
    const struct sis_op *op = linear_of(run, first, log, gathered, &unit);
    const struct sis_weight *w = op->weight;
    if (!w->tiles) return (struct span){NULL, 0};
    const size_t bytes = sis_one_tile_bytes(w->format, w->n_cols),
                 all = sis_tile_bytes(w->format, w->n_rows, w->n_cols);
    const size_t at = ((size_t)(unit % tile_units(op, log)) << log) * bytes;
    return (struct span){w->tiles + at, all - at < AHEAD ? all - at : AHEAD};
}

/* The first of `n` units of the same linear, or more of them; how many. */
static uint32_t do_units(struct run *run, const struct sis_op *op, uint32_t unit, uint32_t n, uint32_t log,
                         int gathered, uint32_t member)
{
    const struct sis_weight *w = op->weight;
    if (w->format == SIS_FOREIGN) foreign_unit(run, op, unit, gathered);
    else if (many_of(run, op, gathered)) {
        if (w->raw) return many_raw_units(run, op, unit, n, gathered, member), n;
        return many_units(run, op, unit, n, gathered, member);
    } else if (w->format == SIS_DECODED) decoded_unit(run, op, unit, log, gathered, member);
    else return packed_units(run, op, unit, n, log, gathered, member), n;
    return 1;
}

void linear_phase(struct run *run, struct team *team, uint32_t first, uint32_t last, int gathered, uint32_t member)
{
    const uint32_t log = log_tiles(run, gathered), n = phase_units(run, first, last, log, gathered);
    const uint32_t quarters = quarters_of(run, first, last, log, gathered);
    for (uint32_t claimed, end; (claimed = team_claim_some(team, member, n, quarters, &end)) < n;)
        while (claimed < end) {
            uint32_t unit = claimed;
            const struct sis_op *op = linear_of(run, first, log, gathered, &unit);
            const uint32_t left = linear_units(run, op, log, gathered) - unit, some = end - claimed;
            claimed += do_units(run, op, unit, left < some ? left : some, log, gathered, member);
        }
}
