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
    uint32_t most;          /* units whose tiles are made at a time of raw rows; 0 where there are none */
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
    for (uint32_t i = first; i < last; i++) {
        const struct sis_weight *w = ops[i].weight;
        if (!many_of(run, &ops[i], gathered) || w->format == SIS_DECODED) return 0;
    }
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
        many_in(run, p->gathered, form)->prepare(&some, run->places[p->prepare->count][form == SIS_FLOAT]);
    }
}

/* `units` units side by side, from tile t on, for rows [first, stop). Tiles of each linear lie at `tiles`; of raw rows, those
 * of the next `ahead` units come from memory meanwhile. */
static void pass_job(const struct run *run, const struct passing *p, const uint8_t *const *tiles, size_t t,
                     uint32_t units, uint32_t first, uint32_t stop, uint32_t ahead, uint32_t member)
{
    const size_t stride = p->units * COLUMNS, n_tiles = (size_t)units << LOG_TILES;
    float *values = (float *)(void *)(run->scratch + member * run->scratch_bytes + run->values_at);
    size_t columns = 0;
    for (uint32_t i = 0; i < p->n_linears; i++) {
        const struct sis_op *op = &p->linears[i];
        struct many job = job_of(run, op, t, n_tiles, member);
        job.tiles = tiles[i];
        job.y = values + i * p->n_rows * stride;
        job.stride = stride;
        job.first = first;
        job.rows = stop - first;
        if (op->weight->raw) job.ahead = raw_rows(op->weight, t + n_tiles, (size_t)ahead << LOG_TILES);
        many_of(run, op, p->gathered)->multiply(&job);
        columns = job.n;
    }
    for (uint32_t row = first, m; row < stop; row += m) {
        m = sis_group_rows(stop - row, run->kernels->max_rows);
        pass(run, p, values, stride, row, m, t * TILE, columns);
    }
}

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* Up to `n` units, how many: those side by side are one job. As in a phase of linears, units run over all tiles for the
 * first rows, then for the next. */
static uint32_t pass_units(const struct run *run, const struct passing *p, uint32_t unit, uint32_t n, uint32_t member)
{
    const uint32_t place = unit % p->across, some = least(least(n, p->units), p->across - place);
    const uint32_t first = unit / p->across * p->unit_rows;
    const uint8_t *tiles[2];
    for (uint32_t i = 0; i < p->n_linears; i++)
        tiles[i] =
            sis_tiles_of(p->linears[i].weight, (size_t)place << LOG_TILES, (size_t)some << LOG_TILES, NULL, NULL);
    pass_job(run, p, tiles, (size_t)place << LOG_TILES, some, first, least(first + p->unit_rows, p->n_rows), 0, member);
    return some;
}

/* `n` units, each for all rows, where a linear has raw ones: tiles are made for the first rows, and still there for the
 * next. */
static void pass_raw_units(const struct run *run, const struct passing *p, uint32_t unit, uint32_t n, uint32_t member)
{
    size_t bytes[2] = {0, 0};
    const uint8_t *made[2][RAW_UNITS];
    uint8_t *scratch[2], *place = run->scratch + member * run->scratch_bytes + run->raw_at;
    for (uint32_t i = 0; i < p->n_linears; i++) {
        const struct sis_weight *w = p->linears[i].weight;
        bytes[i] = sis_one_tile_bytes(w->format, w->n_cols) << LOG_TILES;
        scratch[i] = place;
        if (w->raw) place += p->most * bytes[i];
    }
    for (uint32_t some; n; unit += some, n -= some) {
        some = least(n, p->most);
        uint32_t n_made = 0;
        for (uint32_t first = 0; first < p->n_rows; first += p->unit_rows)
            for (uint32_t i = 0, together; i < some; i += together) {
                int apart = 0; /* some tiles stay, some do not */
                for (together = 0; together < p->units && i + together < some; together++) {
                    const uint32_t next = i + together;
                    for (uint32_t j = 0; next == n_made && j < p->n_linears; j++) {
                        const struct sis_weight *w = p->linears[j].weight;
                        const size_t t = (size_t)(unit + next) << LOG_TILES, left = (w->n_rows + TILE - 1) / TILE - t;
                        made[j][next] = sis_tiles_of(w, t, left < 1u << LOG_TILES ? left : 1u << LOG_TILES,
                                                     scratch[j] + next * bytes[j], NULL);
                    }
                    n_made += next == n_made;
                    for (uint32_t j = 0; j < p->n_linears; j++)
                        apart |= made[j][next] != made[j][i] + together * bytes[j];
                    if (apart) break;
                }
                const uint8_t *const tiles[2] = {made[0][i], p->n_linears > 1 ? made[1][i] : NULL};
                const uint32_t ahead = first ? 0 : least(n - i - together, together);
                pass_job(run, p, tiles, (size_t)(unit + i) << LOG_TILES, together, first,
                         least(first + p->unit_rows, p->n_rows), ahead, member);
            }
    }
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
    uint32_t fits = RAW_UNITS;
    int raw = 0;
    for (uint32_t i = first; i < last; i++) {
        const struct sis_weight *w = ops[i].weight;
        const struct many_rows *many = many_of(run, &ops[i], gathered);
        p.unit_rows = least(p.unit_rows, many->unit_rows(p.n_rows, w->n_cols, form_of(w)));
        p.units = least(p.units, many->units);
        raw |= w->raw != NULL;
        if (w->raw) fits = least(fits, raw_units(w, many, p.n_rows, p.n_linears));
    }
    if (raw) p.most = fits;
    const uint32_t n = raw ? p.across : p.across * ((p.n_rows + p.unit_rows - 1) / p.unit_rows);
    for (uint32_t unit, end; (unit = team_claim_some(team, member, n, raw ? 3 : p.units > 1 ? 2 : 0, &end)) < n;) {
        if (raw) pass_raw_units(run, &p, unit, end - unit, member);
        else
            while (unit < end) unit += pass_units(run, &p, unit, end - unit, member);
    }
}
