/* Linears whose results pass through an activation to the linears that come next: a unit's are multiplied into a member's
 * scratch, activated there, and prepared from there, so that they never leave the second-level cache as floats. The bits
 * are those of three phases. */
#include "run.h"

#define COLUMNS (TILE << LOG_TILES) /* of a unit */

/* What the phase is made of. */
struct passing {
    const struct sis_op *linears, *act, *prepare;
    uint32_t n_linears, n_rows, unit_rows;
    uint32_t across, units; /* units side by side, and those of a job */
    int gathered;
};

static const struct many_rows *many_of(const struct run *run, const struct sis_op *op, int gathered)
{
    return many_in(run, gathered, form_of(op->weight));
}

size_t passing_bytes(const struct many_rows *many, uint32_t rows)
{
    return up((size_t)2 * rows * many->units * COLUMNS * sizeof(float));
}

int can_pass(const struct run *run, uint32_t first, uint32_t last, int gathered)
{
    const struct sis_op *ops = run->program->ops;
    if (!(ops[first].flags & SIS_PASSES)) return 0;
    for (uint32_t i = first; i < last; i++)
        if (!many_of(run, &ops[i], gathered) || !ops[i].weight->tiles) return 0;
    for (uint32_t form = SIS_Q8; form <= SIS_FLOAT; form *= 2)
        if (ops[last + 1].flags & form && !many_in(run, gathered, form)) return 0;
    return 1;
}

/* Rows [first, first + m) of values, which have `stride` floats of each linear, from a column on. */
static void pass(const struct run *run, const struct passing *p, float *values, size_t stride, uint32_t first,
                 uint32_t m, size_t column, size_t n)
{
    const size_t apart = p->n_rows * stride;
    for (uint32_t r = first; r < first + m; r++) {
        float *x = values + r * stride;
        run->kernels->activate(x, p->n_linears > 1 ? x + apart : NULL, x, n, p->act->activation);
    }
    for (uint32_t form = SIS_Q8; form <= SIS_FLOAT; form *= 2) {
        if (!(p->prepare->flags & form)) continue;
        const struct unprepared some = {
            values + first * stride, stride, first, m, p->n_rows, form, column, n, p->prepare->width,
        };
        many_in(run, p->gathered, form)->prepare(&some, run->many_x[p->prepare->count][form == SIS_FLOAT]);
    }
}

/* Up to `n` units, how many: those side by side are one job. As in a phase of linears, units run over all tiles for the
 * first rows, then for the next. */
static uint32_t pass_units(const struct run *run, const struct passing *p, uint32_t unit, uint32_t n, uint32_t member)
{
    const uint32_t place = unit % p->across, left = p->across - place;
    uint32_t some = n < p->units ? n : p->units;
    if (some > left) some = left;
    const size_t t = (size_t)place << LOG_TILES, stride = p->units * COLUMNS;
    const uint32_t first = unit / p->across * p->unit_rows, stop = first + p->unit_rows;
    const uint32_t end = stop < p->n_rows ? stop : p->n_rows;
    float *values = (float *)(void *)(run->scratch + member * run->scratch_bytes + run->values_at);
    size_t columns = 0;
    for (uint32_t i = 0; i < p->n_linears; i++) {
        const struct sis_op *op = &p->linears[i];
        struct many job = job_of(run, op, t, (size_t)some << LOG_TILES, member);
        job.tiles = op->weight->tiles + t * job.tile_bytes;
        job.y = values + i * p->n_rows * stride;
        job.stride = stride;
        job.first = first;
        job.rows = end - first;
        many_of(run, op, p->gathered)->multiply(&job);
        columns = job.n;
    }
    for (uint32_t row = first, m; row < end; row += m) {
        m = sis_group_rows(end - row, run->kernels->max_rows);
        pass(run, p, values, stride, row, m, t * TILE, columns);
    }
    return some;
}

void passing_phase(const struct run *run, struct team *team, uint32_t first, uint32_t last, int gathered,
                   uint32_t member)
{
    const struct sis_op *ops = run->program->ops;
    struct passing p = {
        .linears = &ops[first],
        .act = &ops[last],
        .prepare = &ops[last + 1],
        .n_linears = last - first,
        .n_rows = run->n_rows[gathered],
        .unit_rows = UINT32_MAX,
        .across = (ops[last].width + COLUMNS - 1) / COLUMNS,
        .units = UINT32_MAX,
        .gathered = gathered,
    };
    for (uint32_t i = first; i < last; i++) {
        const struct many_rows *many = many_of(run, &ops[i], gathered);
        const uint32_t rows = many->unit_rows(p.n_rows, ops[i].weight->n_cols, form_of(ops[i].weight));
        if (rows < p.unit_rows) p.unit_rows = rows;
        if (many->units < p.units) p.units = many->units;
    }
    const uint32_t n = p.across * ((p.n_rows + p.unit_rows - 1) / p.unit_rows);
    for (uint32_t unit, end; (unit = team_claim_some(team, member, n, p.units > 1 ? 2 : 0, &end)) < n;)
        while (unit < end) unit += pass_units(run, &p, unit, end - unit, member);
}
