/* The memory that experts need of a workspace. */
#include "experts.h"

#define AT_ONCE 64  /* rows whose results are kept whole */
#define COLUMNS 512 /* of the results of more rows, which take n_used times the memory of rows */

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

size_t experts_turn(const struct sis_experts *e, uint32_t n)
{
    const size_t places = (size_t)n * e->n_used;
    return n > AT_ONCE ? (places + 1) / 2 : places;
}

static size_t most_of_a_turn(const struct sis_experts *e, uint32_t n)
{
    const size_t places = (size_t)n * e->n_used,
                 most = experts_turn(e, n) + n; /* all rows may have chosen one expert */
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
