/* Experts: rows that chose the same one are multiplied together, by the same tile functions as any linear.
 *
 * Results of rows lie in the order of experts, a place for each choice. A row's arithmetic depends on its choices alone,
 * but for sets that multiply many rows at once with other sums: they serve experts that many rows chose. */
#include "results.h"
#include "run.h"
#include <string.h>

#define FEW 16         /* choices whose rows one thread prepares faster than all together */
#define DECODED_ROWS 4 /* rows of a decoded weight at a time */
#define AT_ONCE 64     /* rows whose results are kept whole */
#define COLUMNS 512    /* of the results of more rows, which take n_used times the memory of rows */

/* The two products of an expert: gate and up, and down. */
enum stage { IN, HIDDEN };

/* How tile functions, or `dot` for a decoded weight, read rows. */
static enum row_form row_form(const struct sis_weight *w)
{
    if (w->format == SIS_DECODED) return ROWS_PLAIN;
    return w->format <= SIS_BF16 ? ROWS_FLOAT : ROWS_Q8;
}

static size_t width_of(const struct sis_experts *e, enum stage stage) { return stage == IN ? e->up->n_cols : e->n_ff; }

/* The forms of activations that the weights of a stage read where rows are few; a decoded weight reads rows as they are. */
static uint32_t forms_of(const struct sis_experts *e, enum stage stage)
{
    if (stage == HIDDEN) return 1u << row_form(e->down);
    return 1u << row_form(e->up) | (e->gate ? 1u << row_form(e->gate) : 0);
}

static uint32_t many_form(const struct sis_weight *w) { return row_form(w) == ROWS_Q8 ? SIS_Q8 : SIS_FLOAT; }

static uint32_t many_forms_of(const struct sis_experts *e, enum stage stage)
{
    if (stage == HIDDEN) return many_form(e->down);
    return many_form(e->up) | (e->gate ? many_form(e->gate) : 0);
}

/* Bytes of an order, laid out at `place` where there is one. */
static size_t room_of_order(const struct experts_room *room, uint8_t *place, struct expert_order *order)
{
    const size_t experts = up(room->n_expert * sizeof(struct expert_rows));
    const size_t groups = up(room->choices * sizeof(struct expert_group)),
                 choices = up(room->choices * sizeof(uint32_t));
    if (order) {
        order->experts = (struct expert_rows *)(void *)place;
        order->groups = (struct expert_group *)(void *)(place + experts);
        order->choices = (uint32_t *)(void *)(place + experts + groups);
        order->counts = (uint32_t *)(void *)(place + experts + groups + choices);
    }
    return experts + groups + choices + up(room->n_expert * sizeof(uint32_t));
}

size_t experts_columns(const struct sis_experts *e, uint32_t n)
{
    return n > AT_ONCE && e->n_out > COLUMNS ? COLUMNS : e->n_out;
}

/* Choices after which the second turn begins, with the next expert. */
static size_t turn_of(const struct sis_experts *e, uint32_t n)
{
    const size_t places = (size_t)n * e->n_used;
    return n > AT_ONCE ? (places + 1) / 2 : places;
}

static size_t most_of_a_turn(const struct sis_experts *e, uint32_t n)
{
    const size_t places = (size_t)n * e->n_used, most = turn_of(e, n) + n; /* all rows may have chosen one expert */
    return most < places ? most : places;
}

void experts_room(const struct sis_op *op, uint32_t n, int invariant, struct experts_room *room)
{
    const struct sis_experts *e = op->experts;
    const size_t places = (size_t)n * e->n_used, few = e->n_expert < places ? e->n_expert : places;
    const struct sis_weight *weights[] = {e->up, e->down, e->gate};
    for (enum stage stage = IN; stage <= HIDDEN; stage++) {
        uint32_t least = 1; /* rows of an expert that are multiplied at once, in every form */
        for (uint32_t form = SIS_Q8; form <= SIS_FLOAT; form *= 2) {
            const uint32_t from = sis_least_many(sis_kernels(), form, invariant);
            if (many_forms_of(e, stage) & form && from > least) least = from;
        }
        const size_t at_once = stage == IN ? most_of_a_turn(e, n) : places;
        const size_t left = (size_t)e->n_expert * (least - 1); /* of experts that few chose */
        const size_t k = width_of(e, stage), rows = left < at_once ? left : at_once,
                     sizes[] = {rows * k * 2, rows * sis_float_row(sis_kernels(), k) * 4, rows * k * 4};
        for (int form = 0; form < N_ROW_FORMS; form++)
            if (forms_of(e, stage) >> form & 1) raise_to(&room->rows[stage][form], up(sizes[form]));
        for (uint32_t form = SIS_Q8; form <= SIS_FLOAT; form *= 2) {
            const struct many_rows *many = sis_many_for(sis_kernels(), n, form, invariant);
            if (!many || !(many_forms_of(e, stage) & form)) continue;
            const size_t bytes = many->x_bytes((uint32_t)at_once, k, form) + few * (many->x_bytes(1, k, form) + 64);
            raise_to(&room->many[stage][form == SIS_FLOAT], up(bytes));
            raise_to(&room->many_scratch, up(many->scratch_bytes(n, k, form)));
        }
    }
    for (int i = 0; i < 3; i++) {
        const struct sis_weight *w = weights[i];
        if (!w || !w->raw) continue;
        const size_t some = sis_any_many(sis_kernels(), n) ? 1u << LOG_TILES : 1;
        const size_t tiles = some * sis_one_tile_bytes(w->format, w->n_cols);
        raise_to(&room->raw_scratch, tiles + up(w->format == SIS_DECODED ? TILE * w->n_cols * sizeof(float) : 0));
    }
    raise_to(&room->gathered, up(sis_kernels()->max_rows * width_of(e, IN) * sizeof(float)));
    if (e->gate) {
        const uint32_t few = n < sis_kernels()->max_rows ? n : sis_kernels()->max_rows;
        raise_to(&room->gates, up(((size_t)n * TILE << LOG_TILES) * sizeof(float)));
        raise_to(&room->gates, up((size_t)few * TILE * WRITTEN * sizeof(float)));
    }
    raise_to(&room->out, up(places * experts_columns(e, n) * sizeof(float)));
    raise_to(&room->choices, places);
    raise_to(&room->n_expert, e->n_expert);
    room->order = room_of_order(room, NULL, NULL);
}

struct expert_order experts_order(const struct experts_room *room, uint8_t *place)
{
    struct expert_order order = {0};
    room_of_order(room, place, &order);
    return order;
}

/* What multiplies an expert's rows in a form at once, or NULL. */
static const struct many_rows *many_of(const struct run *run, const struct expert_rows *rows, uint32_t form)
{
    return sis_many_for(run->kernels, rows->n, form, is_invariant(run->step));
}

/* Whether that is so with every weight of a stage. */
static int is_many(const struct run *run, const struct sis_experts *e, enum stage stage, const struct expert_rows *rows)
{
    for (uint32_t form = SIS_Q8; form <= SIS_FLOAT; form *= 2)
        if (many_forms_of(e, stage) & form && !many_of(run, rows, form)) return 0;
    return 1;
}

static uint32_t log_tiles(const struct run *run) { return run->n_groups[0] > 1 ? LOG_TILES : 0; }

static uint32_t tile_units(const struct run *run, size_t n_out)
{
    return (uint32_t)((n_out / TILE + (1u << log_tiles(run)) - 1) >> log_tiles(run));
}

/* The rows of a unit: all of an expert's, or as many as are multiplied at once in every form. */
static uint32_t unit_rows(const struct run *run, const struct sis_experts *e, enum stage stage,
                          const struct expert_rows *rows)
{
    if (!is_many(run, e, stage, rows)) return rows->n;
    uint32_t least = rows->n;
    for (uint32_t form = SIS_Q8; form <= SIS_FLOAT; form *= 2) {
        if (!(many_forms_of(e, stage) & form)) continue;
        const uint32_t n = many_of(run, rows, form)->unit_rows(rows->n, width_of(e, stage), form);
        if (n < least) least = n;
    }
    return least;
}

/* A unit is some tiles times some rows. */
static uint32_t units_of(const struct run *run, const struct sis_experts *e, enum stage stage,
                         const struct expert_rows *rows)
{
    const uint32_t at_once = unit_rows(run, e, stage, rows);
    const size_t columns = stage == IN ? e->n_ff : experts_columns(e, run->n_rows[0]);
    return tile_units(run, columns) * ((rows->n + at_once - 1) / at_once);
}

/* Where the next expert's rows begin: among those of all that are multiplied at once, and among the others. */
struct next_rows {
    size_t many_at[2][2];
    uint32_t few_at[2];
};

static void place_rows(const struct run *run, const struct sis_experts *e, struct expert_rows *rows,
                       struct next_rows *next)
{
    memcpy(rows->many_at, next->many_at, sizeof rows->many_at);
    memcpy(rows->few_at, next->few_at, sizeof rows->few_at);
    for (enum stage stage = IN; stage <= HIDDEN; stage++) {
        if (!is_many(run, e, stage, rows)) {
            next->few_at[stage] += rows->n;
            continue;
        }
        for (uint32_t form = SIS_Q8; form <= SIS_FLOAT; form *= 2)
            if (many_forms_of(e, stage) & form)
                next->many_at[stage][form == SIS_FLOAT] +=
                    up(many_of(run, rows, form)->x_bytes(rows->n, width_of(e, stage), form));
    }
}

/* Where a group's rows lie among those that tile functions read. */
static size_t few_at(const struct expert_rows *rows, const struct expert_group *g, enum stage stage)
{
    return rows->few_at[stage] + (g->first - rows->first);
}

static void begin_turn(struct expert_order *order, uint32_t turn)
{
    order->turns[turn].group = order->n_groups;
    order->turns[turn].unit = order->units[IN];
}

/* The order of choices by expert, then by row. */
static void arrange(const struct run *run, const struct sis_op *op)
{
    const struct sis_experts *e = op->experts;
    struct expert_order *order = run->order;
    const uint32_t n = run->n_rows[0], max_rows = run->kernels->max_rows;
    struct next_rows next = {{{0}}, {0}};
    memset(order->counts, 0, e->n_expert * sizeof *order->counts);
    for (uint32_t row = 0; row < n; row++)
        for (uint32_t slot = 0, expert; slot < e->n_used; slot++) {
            memcpy(&expert, at(run, e->chosen, row, slot), sizeof expert);
            order->counts[expert]++;
        }
    uint32_t place = 0;
    order->n_experts = order->n_groups = order->units[IN] = order->units[HIDDEN] = 0;
    memset(order->turns, 0, sizeof order->turns);
    order->n_turns = 1;
    for (uint32_t expert = 0; expert < e->n_expert; expert++) {
        const uint32_t count = order->counts[expert];
        order->counts[expert] = place; /* from here on where the next choice of it goes */
        if (!count) continue;
        if (order->n_turns == 1 && place >= turn_of(e, n)) {
            begin_turn(order, order->n_turns++);
            memset(next.many_at[IN], 0, sizeof next.many_at[IN]);
            next.few_at[IN] = 0;
        }
        struct expert_rows *rows = &order->experts[order->n_experts];
        *rows = (struct expert_rows){.expert = expert, .first = place, .n = count, .first_group = order->n_groups};
        place_rows(run, e, rows, &next);
        for (enum stage stage = IN; stage <= HIDDEN; stage++) {
            rows->units_before[stage] = order->units[stage];
            order->units[stage] += units_of(run, e, stage, rows);
        }
        for (uint32_t done = 0; done < count;) {
            const uint32_t m = sis_group_rows(count - done, max_rows);
            order->groups[order->n_groups++] = (struct expert_group){place + done, m, order->n_experts};
            done += m;
        }
        order->n_experts++;
        place += count;
    }
    begin_turn(order, order->n_turns);
    for (uint32_t row = 0; row < n; row++)
        for (uint32_t slot = 0, expert; slot < e->n_used; slot++) {
            memcpy(&expert, at(run, e->chosen, row, slot), sizeof expert);
            const uint32_t to = order->counts[expert]++;
            memcpy(at(run, e->chosen, row, e->n_used + slot), &to, sizeof to);
            order->choices[to] = row * e->n_used + slot;
        }
}

/* The rows of a group of choices as they go into their expert, and the distance between them. */
static const float *gathered(const struct run *run, const struct sis_op *op, const struct expert_group *g,
                             uint32_t member, size_t *stride)
{
    const struct sis_experts *e = op->experts;
    const size_t k = width_of(e, IN);
    float *out = (float *)(void *)(run->scratch + member * run->scratch_bytes);
    *stride = k;
    for (uint32_t i = 0; i < g->m; i++, out += k) {
        const uint32_t choice = run->order->choices[g->first + i], row = choice / e->n_used;
        const float *x = at(run, op->src, row, op->src_at);
        if (!(e->flags & SIS_SCALE_INPUT)) {
            if (g->m == 1) return x;
            memcpy(out, x, k * sizeof *x);
            continue;
        }
        const float weight = *at(run, e->chosen, row, 2 * e->n_used + choice % e->n_used);
        for (size_t j = 0; j < k; j++) out[j] = weight * x[j];
    }
    return out - g->m * k;
}

/* How the weights of a stage read floats. */
static struct sis_read read_in(const struct run *run, const struct sis_experts *e, enum stage stage)
{
    struct sis_read read = {0, 0};
    sis_reads(run->kernels, stage == IN ? e->up->format : e->down->format, &read);
    if (stage == IN && e->gate) sis_reads(run->kernels, e->gate->format, &read);
    return read;
}

static void prepare_group(const struct run *run, const struct sis_op *op, enum stage stage, uint32_t unit,
                          uint32_t member)
{
    const struct sis_experts *e = op->experts;
    const struct expert_group *g = &run->order->groups[unit];
    const struct expert_rows *rows = &run->order->experts[g->expert];
    const size_t k = width_of(e, stage);
    size_t stride = k;
    const float *x = stage == IN ? gathered(run, op, g, member, &stride) : run->registers[e->up_values] + g->first * k;
    if (is_many(run, e, stage, rows)) {
        for (uint32_t form = SIS_Q8; form <= SIS_FLOAT; form *= 2)
            if (many_forms_of(e, stage) & form) {
                const struct unprepared some = {x, stride, g->first - rows->first, g->m, rows->n, form, 0, k, k};
                many_of(run, rows, form)
                    ->prepare(&some,
                              run->expert_many[stage][form == SIS_FLOAT] + rows->many_at[stage][form == SIS_FLOAT]);
            }
        return;
    }
    const uint32_t forms = forms_of(e, stage);
    const size_t first = few_at(rows, g, stage);
    if (forms >> ROWS_Q8 & 1) {
        struct q8_block *out = (struct q8_block *)(void *)run->expert_x[stage][ROWS_Q8];
        run->kernels->prepare_q8(x, stride, g->m, k, out + first * (k / BLOCK));
    }
    if (forms >> ROWS_FLOAT & 1) {
        float *out = (float *)(void *)run->expert_x[stage][ROWS_FLOAT];
        sis_prepare_floats(run->kernels, read_in(run, e, stage), x, stride, g->m, k,
                           out + first * sis_float_row(run->kernels, k));
    }
    float *out = (float *)(void *)run->expert_x[stage][ROWS_PLAIN] + first * k;
    for (uint32_t i = 0; forms >> ROWS_PLAIN & 1 && i < g->m; i++) memcpy(out + i * k, x + i * stride, k * sizeof *x);
}

/* Some tiles of one expert's weight times some of its rows. */
struct product {
    const struct sis_weight *w;
    const struct expert_rows *rows;
    enum stage stage;
    int many;
    const float *bias;    /* of the first tile */
    size_t tile, n_tiles; /* of the whole weight */
    uint32_t first, n;    /* rows among the expert's */
    float *y;             /* where the first tile's values of the expert's first row go */
    size_t stride;
    struct span ahead; /* what is read after it, where that is known */
};

/* acc[tile][m][TILE] is what n columns, from `column` on, have of m of the expert's rows. */
static void write_columns(const struct product *p, uint32_t first, uint32_t m, size_t column, size_t n,
                          const float *acc)
{
    sis_write_results(p->y + first * p->stride + column, p->stride, m, n, acc, (size_t)m * TILE,
                      p->bias ? p->bias + column : NULL, 0);
}

static void product_of_many(const struct run *run, const struct product *p, uint32_t member)
{
    const struct sis_weight *w = p->w;
    const size_t bytes = sis_one_tile_bytes(w->format, w->n_cols);
    const int floats = many_form(w) == SIS_FLOAT;
    struct many job = {
        .format = w->format,
        .first = p->first,
        .rows = p->n,
        .k = w->n_cols,
        .x = run->expert_many[p->stage][floats] + p->rows->many_at[p->stage][floats],
        .tile_bytes = bytes,
        .n = p->n_tiles * TILE,
        .y = p->y,
        .stride = p->stride,
        .bias = p->bias,
        .scratch = run->scratch + member * run->scratch_bytes,
        .ahead = p->ahead,
    };
    uint8_t *made = job.scratch + run->raw_at;
    job.tiles = sis_tiles_of(w, p->tile, p->n_tiles, made, (float *)(void *)(made + (bytes << LOG_TILES)));
    many_of(run, p->rows, many_form(w))->multiply(&job);
}

/* A group's rows as the weight reads them. */
static const void *rows_of(const struct run *run, const struct product *p, const struct expert_group *g)
{
    const size_t k = p->w->n_cols, first = few_at(p->rows, g, p->stage);
    uint8_t *const *x = run->expert_x[p->stage];
    switch (row_form(p->w)) {
    case ROWS_Q8: return x[ROWS_Q8] + first * (k / BLOCK) * sizeof(struct q8_block);
    case ROWS_FLOAT: return x[ROWS_FLOAT] + first * sis_float_row(run->kernels, k) * sizeof(float);
    default: return x[ROWS_PLAIN] + first * k * sizeof(float);
    }
}

static void product_decoded(const struct run *run, const struct product *p, uint32_t member)
{
    const struct sis_weight *w = p->w;
    const size_t first = p->tile * TILE, stop = first + p->n_tiles * TILE;
    float acc[MAX_GROUP * TILE], *rows = (float *)(void *)(run->scratch + member * run->scratch_bytes);
    for (size_t row = first; row < stop; row += DECODED_ROWS) {
        w->decode(w->raw + row * w->row_bytes, w->row_bytes, DECODED_ROWS, w->n_cols, rows);
        const struct expert_group *g = run->order->groups + p->rows->first_group;
        for (uint32_t done = 0; done < p->rows->n; done += g++->m) {
            run->kernels->dot(rows, DECODED_ROWS, rows_of(run, p, g), w->n_cols, g->m, w->n_cols, acc);
            write_columns(p, done, g->m, row - first, DECODED_ROWS, acc);
        }
    }
}

static void product_packed(const struct run *run, const struct product *p, uint32_t member)
{
    const struct sis_weight *w = p->w;
    float acc[WRITTEN * MAX_GROUP * TILE] __attribute__((aligned(64)));
    uint8_t *scratch = run->scratch + member * run->scratch_bytes;
    const size_t at_a_time = w->raw ? 1 : p->n_tiles; /* raw: a tile is made once, and then used for all rows */
    for (size_t t = 0; t < p->n_tiles; t += at_a_time) {
        const uint8_t *tiles = sis_tiles_of(w, p->tile + t, at_a_time, scratch, NULL);
        const struct expert_group *g = run->order->groups + p->rows->first_group;
        for (uint32_t done = 0; done < p->rows->n; done += g++->m) {
            const void *x = rows_of(run, p, g);
            sis_multiply_tiles(run->kernels, w->format, tiles, at_a_time, x, g->m, w->n_cols, acc);
            write_columns(p, done, g->m, t * TILE, at_a_time * TILE, acc);
        }
    }
}

static void multiply(const struct run *run, const struct product *p, uint32_t member)
{
    if (p->many) product_of_many(run, p, member);
    else if (p->w->format == SIS_DECODED) product_decoded(run, p, member);
    else product_packed(run, p, member);
}

/* How many of n units, which lie side by side in their expert, are one product. */
static uint32_t units_at_once(const struct run *run, uint32_t n, int many)
{
    return many || log_tiles(run) ? 1 : n < WRITTEN ? n : WRITTEN;
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
    const uint32_t across = tile_units(run, columns), at_once = unit_rows(run, e, stage, rows);
    unit -= rows->units_before[stage];
    const int many = is_many(run, e, stage, rows);
    const uint32_t place = unit % across, some = units_at_once(run, n < across - place ? n : across - place, many);
    const size_t t = from / TILE + ((size_t)place << log_tiles(run)), tiles = (size_t)some << log_tiles(run),
                 column = t * TILE;
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
        multiply(run, &p, member);
        return some;
    }
    p.w = e->up, p.y = run->registers[e->up_values] + value, p.bias = e->up_bias ? e->up_bias + bias_at : NULL;
    const struct span next_up = some < n ? ahead_of(&p, p.w, p.tile + p.n_tiles) : (struct span){NULL, 0};
    p.ahead = e->gate ? ahead_of(&p, e->gate, p.tile - before_up) : next_up;
    multiply(run, &p, member);
    float *ups = p.y, *gates = NULL;
    if (e->gate) {
        gates = (float *)(void *)(run->scratch + member * run->scratch_bytes + run->values_at);
        p.w = e->gate, p.tile -= before_up, p.y = gates, p.bias = e->gate_bias ? e->gate_bias + bias_at : NULL;
        p.stride = p.n_tiles * TILE, p.ahead = next_up;
        multiply(run, &p, member);
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
    for (uint32_t unit, end; (unit = team_claim_some(team, member, n, log_tiles(run) == 0 ? 2 : 0, &end)) < n;)
        while (unit < end) unit += do_units(run, op, stage, from, first + unit, end - unit, member);
}

/* Groups [first, stop). */
static void prepare_stage(const struct run *run, struct team *team, const struct sis_op *op, enum stage stage,
                          uint32_t first, uint32_t stop, uint32_t member)
{
    const uint32_t n = stop - first;
    for (uint32_t unit; (unit = team_claim(team, member, n)) < n;) prepare_group(run, op, stage, first + unit, member);
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
    arrange(run, op);
    for (uint32_t unit = 0; is_few(run, op) && unit < run->order->n_groups; unit++) prepare_group(run, op, IN, unit, 0);
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
        prepare_group(alone->run, alone->op, HIDDEN, unit, 0);
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
