/* Linears: units of a few tiles, each for all rows of the step. */
#include "run.h"
#include <string.h>

#define AHEAD (96 << 10) /* bytes: what memory brings while one member does a long row operation */

/* Tiles in a unit, as a power of two. While they serve many groups of rows, a group's activations should serve several
 * tiles; a single group passes over each tile once, and small units let all members end at the same time. */
static uint32_t log_tiles(const struct run *run, int gathered) { return run->n_groups[gathered] > 1 ? 2 : 0; }

static uint32_t linear_units(const struct sis_op *op, uint32_t log)
{
    if (op->weight->format == SIS_FOREIGN) return op->weight->linear->parts;
    uint64_t tiles = (op->weight->n_rows + TILE - 1) / TILE;
    return (uint32_t)((tiles + (1u << log) - 1) >> log);
}

static void write_tile(const struct run *run, const struct sis_op *op, const struct group_of_rows *g, size_t first,
                       const float *acc)
{
    size_t n = op->weight->n_rows - first < TILE ? op->weight->n_rows - first : TILE;
    for (uint32_t m = 0; m < g->m; m++) {
        float *y = at(run, op->dst, g->first + m, op->dst_at) + first;
        const float *a = acc + m * TILE;
        if (op->bias && op->flags & SIS_ADD)
            for (size_t i = 0; i < n; i++) y[i] += a[i] + op->bias[first + i];
        else if (op->bias)
            for (size_t i = 0; i < n; i++) y[i] = a[i] + op->bias[first + i];
        else if (op->flags & SIS_ADD)
            for (size_t i = 0; i < n; i++) y[i] += a[i];
        else if (n == TILE) memcpy(y, a, TILE * sizeof *y);
        else memcpy(y, a, n * sizeof *y);
    }
}

static void linear_unit(struct run *run, const struct sis_op *op, uint32_t unit, uint32_t log, int gathered,
                        uint32_t member)
{
    const struct sis_weight *w = op->weight;
    if (w->format == SIS_FOREIGN) {
        uint64_t n = gathered ? run->step->n_out : run->step->n;
        struct sis_rows x = {at(run, op->src, 0, op->src_at), n, w->n_cols, stride_of(run, op->src)};
        struct sis_rows y = {at(run, op->dst, 0, op->dst_at), n, w->n_rows, stride_of(run, op->dst)};
        int32_t error = w->linear->run(w->linear->self, &x, &y, unit, w->linear->parts);
        if (error) atomic_store(&run->error, error);
        return;
    }
    float acc[MAX_GROUP * TILE] __attribute__((aligned(64)));
    const size_t k = w->n_cols, bytes = sis_one_tile_bytes(w->format, k), n_tiles = (w->n_rows + TILE - 1) / TILE;
    const int is_float = w->format <= SIS_BF16 || w->format == SIS_DECODED;
    const tile_fn tile_of = run->kernels->tile[w->format];
    size_t t = (size_t)unit << log, stop = t + (1u << log) < n_tiles ? t + (1u << log) : n_tiles;
    uint8_t *scratch = run->scratch + member * run->scratch_bytes;
    /* Packed: all tiles of the unit for each group of rows, so that the rows stay in the first-level cache. Raw: all
     * groups for each tile, which is made once. */
    if (w->raw) {
        for (; t < stop; t++) {
            sis_pack_tile(w, t, scratch, (float *)(void *)(scratch + bytes));
            for (uint32_t i = 0; i < run->n_groups[gathered]; i++) {
                const struct group_of_rows *g = &run->groups[gathered][i];
                const void *x = is_float ? (const void *)(run->floats + g->first * k)
                                         : (const void *)(run->q8 + g->first * (k / BLOCK));
                tile_of(scratch, x, g->m, k, acc);
                write_tile(run, op, g, t * TILE, acc);
            }
        }
        return;
    }
    for (uint32_t i = 0; i < run->n_groups[gathered]; i++) {
        const struct group_of_rows *g = &run->groups[gathered][i];
        const void *x = is_float ? (const void *)(run->floats + g->first * k)
                                 : (const void *)(run->q8 + g->first * (k / BLOCK));
        for (size_t j = t; j < stop; j++) {
            tile_of(w->tiles + j * bytes, x, g->m, k, acc);
            write_tile(run, op, g, j * TILE, acc);
        }
    }
}

static uint32_t phase_units(const struct run *run, uint32_t first, uint32_t last, uint32_t log)
{
    uint32_t n = 0;
    for (uint32_t i = first; i < last; i++) n += linear_units(&run->program->ops[i], log);
    return n;
}

struct span linear_ahead(const struct run *run, const struct team *team, uint32_t first, uint32_t last, int gathered,
                         uint32_t member)
{
    const uint32_t log = log_tiles(run, gathered), size = team_size(team);
    uint32_t unit = (uint32_t)((uint64_t)phase_units(run, first, last, log) * member / size), i = first;
    while (i < last && unit >= linear_units(&run->program->ops[i], log)) unit -= linear_units(&run->program->ops[i++], log);
    if (i == last) return (struct span){NULL, 0};
    const struct sis_weight *w = run->program->ops[i].weight;
    if (!w->tiles) return (struct span){NULL, 0};
    const size_t bytes = sis_one_tile_bytes(w->format, w->n_cols), left = sis_tile_bytes(w->format, w->n_rows, w->n_cols);
    const size_t at = ((size_t)unit << log) * bytes;
    return (struct span){w->tiles + at, left - at < AHEAD ? left - at : AHEAD};
}

void linear_phase(struct run *run, struct team *team, uint32_t first, uint32_t last, int gathered, uint32_t member)
{
    const struct sis_op *ops = run->program->ops;
    const uint32_t log = log_tiles(run, gathered);
    const uint32_t n = phase_units(run, first, last, log);
    for (uint32_t first_unit, end; (first_unit = team_claim_some(team, member, n, log == 0, &end)) < n;)
        for (uint32_t unit = first_unit; unit < end; unit++) {
            uint32_t i = first, of_op = unit;
            while (of_op >= linear_units(&ops[i], log)) of_op -= linear_units(&ops[i++], log);
            linear_unit(run, &ops[i], of_op, log, gathered, member);
        }
}
