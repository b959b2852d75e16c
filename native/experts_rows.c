/* Rows as experts' weights read them: gathered by choice, and prepared in groups. */
#include "experts.h"
#include <string.h>

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

void experts_prepare(const struct run *run, const struct sis_op *op, enum stage stage, uint32_t group, uint32_t member)
{
    const struct sis_experts *e = op->experts;
    const struct expert_group *g = &run->order->groups[group];
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

const void *experts_prepared(const struct run *run, const struct sis_weight *w, enum stage stage,
                             const struct expert_group *g)
{
    const size_t k = w->n_cols, first = few_at(&run->order->experts[g->expert], g, stage);
    uint8_t *const *x = run->expert_x[stage];
    switch (row_form(w)) {
    case ROWS_Q8: return x[ROWS_Q8] + first * (k / BLOCK) * sizeof(struct q8_block);
    case ROWS_FLOAT: return x[ROWS_FLOAT] + first * sis_float_row(run->kernels, k) * sizeof(float);
    default: return x[ROWS_PLAIN] + first * k * sizeof(float);
    }
}
