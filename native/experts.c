/* Experts: rows that chose the same one are multiplied together, by the same tile functions as any linear.
 *
 * Results of rows lie in the order of experts, a place for each choice. A row's arithmetic depends on its choices alone,
 * but for sets that multiply many rows at once with other sums: they serve experts that many rows chose. */
#include "experts.h"

#define FEW 16 /* choices whose rows one thread prepares faster than all together */

/* How many of n units, which lie side by side in their expert, are one product. */
static uint32_t units_at_once(const struct run *run, uint32_t n, int many)
{
    return many || experts_log_tiles(run) ? 1 : n < WRITTEN ? n : WRITTEN;
}

/* The raw rows of as many of a weight's tiles as the product has, from one on. */
static struct span ahead_of(const struct product *p, const struct sis_weight *w, size_t tile)
{
    return p->many && w->raw ? raw_rows(w, tile, p->n_tiles) : (struct span){NULL, 0};
}

/* The first of n units of a stage, or more of them; how many. A unit is of the first stage with the activation, of the
 * second for results from a column on. */
static uint32_t do_units(const struct run *run, const struct sis_op *op, enum stage stage, size_t from, uint32_t unit,
                         uint32_t n, uint32_t member)
{
    const struct sis_experts *e = op->experts;
    const struct expert_order *order = run->order;
    uint32_t low = 0, high = order->n_experts;
    while (high - low > 1) {
        const uint32_t middle = (low + high) / 2;
        if (order->experts[middle].units_before[stage] <= unit) low = middle;
        else high = middle;
    }
    const struct expert_rows *rows = &order->experts[low];
    const size_t n_out = stage == IN ? e->n_ff : e->n_out, all_tiles = n_out / TILE,
                 columns = stage == IN ? n_out : experts_columns(e, run->n_rows[0]);
    const uint32_t across = experts_units_across(run, columns), at_once = experts_unit_rows(run, e, stage, rows);
    unit -= rows->units_before[stage];
    const int many = is_many(run, e, stage, rows);
    const uint32_t place = unit % across, some = units_at_once(run, n < across - place ? n : across - place, many);
    const size_t t = from / TILE + ((size_t)place << experts_log_tiles(run)),
                 tiles = (size_t)some << experts_log_tiles(run), column = t * TILE;
    if (t >= all_tiles) return some; /* the last columns are fewer */
    const size_t before_up = stage == IN && e->flags & SIS_HALVES ? all_tiles : 0;
    struct product p = {
        .rows = rows,
        .stage = stage,
        .many = many,
        .tile = rows->expert * (before_up + all_tiles) + before_up + t,
        .n_tiles = all_tiles - t < tiles ? all_tiles - t : tiles,
        .first = unit / across * at_once,
        .stride = columns,
    };
    p.n = rows->n - p.first < at_once ? rows->n - p.first : at_once;
    const size_t value = rows->first * columns + column - from, bias_at = rows->expert * n_out + column;
    if (stage == HIDDEN) {
        p.w = e->down, p.y = run->expert_out + value, p.bias = e->down_bias ? e->down_bias + bias_at : NULL;
        if (some < n) p.ahead = ahead_of(&p, p.w, p.tile + p.n_tiles);
        experts_multiply(run, &p, member);
        return some;
    }
    p.w = e->up, p.y = run->registers[e->up_values] + value, p.bias = e->up_bias ? e->up_bias + bias_at : NULL;
    const struct span next_up = some < n ? ahead_of(&p, p.w, p.tile + p.n_tiles) : (struct span){NULL, 0};
    p.ahead = e->gate ? ahead_of(&p, e->gate, p.tile - before_up) : next_up;
    experts_multiply(run, &p, member);
    float *ups = p.y, *gates = NULL;
    if (e->gate) {
        gates = (float *)(void *)(run->scratch + member * run->scratch_bytes + run->values_at);
        p.w = e->gate, p.tile -= before_up, p.y = gates, p.bias = e->gate_bias ? e->gate_bias + bias_at : NULL;
        p.stride = p.n_tiles * TILE, p.ahead = next_up;
        experts_multiply(run, &p, member);
    }
    for (uint32_t i = p.first; i < p.first + p.n; i++) {
        float *y = ups + i * n_out, *x = gates ? gates + i * p.stride : y;
        run->kernels->activate(x, gates ? y : NULL, y, p.n_tiles * TILE, e->activation);
    }
    return some;
}

/* Units [first, stop) of a stage. */
static void do_stage(const struct run *run, struct team *team, const struct sis_op *op, enum stage stage, size_t from,
                     uint32_t first, uint32_t stop, uint32_t member)
{
    const uint32_t n = stop - first;
    for (uint32_t unit, end; (unit = team_claim_some(team, member, n, experts_log_tiles(run) == 0 ? 2 : 0, &end)) < n;)
        while (unit < end) unit += do_units(run, op, stage, from, first + unit, end - unit, member);
}

/* Groups [first, stop). */
static void prepare_stage(const struct run *run, struct team *team, const struct sis_op *op, enum stage stage,
                          uint32_t first, uint32_t stop, uint32_t member)
{
    const uint32_t n = stop - first;
    for (uint32_t unit; (unit = team_claim(team, member, n)) < n;)
        experts_prepare(run, op, stage, first + unit, member);
    team_barrier(team);
}

static void combine_stage(const struct run *run, struct team *team, const struct sis_op *op, size_t from,
                          uint32_t member)
{
    const uint32_t n = run->n_groups[0];
    for (uint32_t unit; (unit = team_claim(team, member, n)) < n;) {
        const struct group_of_rows *g = &run->groups[0][unit];
        for (uint32_t i = 0; i < g->m; i++) combine_columns(run, op, g->first + i, from);
    }
}

static int is_few(const struct run *run, const struct sis_op *op)
{
    return run->n_groups[0] == 1 && run->n_rows[0] * op->experts->n_used <= FEW;
}

void experts_begin(const struct run *run, const struct sis_op *op)
{
    experts_arrange(run, op);
    for (uint32_t unit = 0; is_few(run, op) && unit < run->order->n_groups; unit++)
        experts_prepare(run, op, IN, unit, 0);
}

struct alone {
    const struct run *run;
    const struct sis_op *op;
};

static void begin_alone(void *context)
{
    const struct alone *alone = context;
    experts_begin(alone->run, alone->op);
}

static void prepare_hidden_alone(void *context)
{
    const struct alone *alone = context;
    for (uint32_t unit = 0; unit < alone->run->order->n_groups; unit++)
        experts_prepare(alone->run, alone->op, HIDDEN, unit, 0);
}

void experts_phase(const struct run *run, struct team *team, const struct sis_op *op, uint32_t member)
{
    const struct span nothing = {NULL, 0};
    struct alone alone = {run, op};
    const int few = is_few(run, op);
    if (run->n_groups[0] > 1) team_barrier_then(team, begin_alone, &alone, nothing);
    const struct expert_order *order = run->order;
    for (uint32_t turn = 0; turn < order->n_turns; turn++) {
        if (!few) prepare_stage(run, team, op, IN, order->turns[turn].group, order->turns[turn + 1].group, member);
        do_stage(run, team, op, IN, 0, order->turns[turn].unit, order->turns[turn + 1].unit, member);
        team_barrier_then(team, few ? prepare_hidden_alone : NULL, &alone, nothing);
    }
    if (!few) prepare_stage(run, team, op, HIDDEN, 0, order->n_groups, member);
    const size_t columns = experts_columns(op->experts, run->n_rows[0]);
    for (size_t from = 0;; from += columns) {
        do_stage(run, team, op, HIDDEN, from, 0, order->units[HIDDEN], member);
        if (from + columns >= op->experts->n_out) return; /* the op that follows combines the last columns */
        team_barrier(team);
        combine_stage(run, team, op + 1, from, member);
        team_barrier(team);
    }
}
