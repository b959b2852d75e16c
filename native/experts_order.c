/* The order in which experts are served, and the units of their products. */
#include "experts.h"
#include <string.h>

uint32_t experts_log_tiles(const struct run *run) { return run->n_groups[0] > 1 ? LOG_TILES : 0; }

uint32_t experts_units_across(const struct run *run, size_t n_out)
{
    return (uint32_t)((n_out / TILE + (1u << experts_log_tiles(run)) - 1) >> experts_log_tiles(run));
}

uint32_t experts_unit_rows(const struct run *run, const struct sis_experts *e, enum stage stage,
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

static uint32_t units_of(const struct run *run, const struct sis_experts *e, enum stage stage,
                         const struct expert_rows *rows)
{
    const uint32_t at_once = experts_unit_rows(run, e, stage, rows);
    const size_t columns = stage == IN ? e->n_ff : experts_columns(e, run->n_rows[0]);
    return experts_units_across(run, columns) * ((rows->n + at_once - 1) / at_once);
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

static void begin_turn(struct expert_order *order, uint32_t turn)
{
    order->turns[turn].group = order->n_groups;
    order->turns[turn].unit = order->units[IN];
}

void experts_arrange(const struct run *run, const struct sis_op *op)
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
        if (order->n_turns == 1 && place >= experts_turn(e, n)) {
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
