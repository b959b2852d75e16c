/* Operations on rows: everything of a program that is neither a linear nor attention. */
#include "hadamard.h"
#include "run.h"
#include <string.h>

static void store_keys(const struct run *run, const struct sis_op *op, uint32_t row)
{
    const struct sis_step *step = run->step;
    const struct sis_kv *kv = &step->kv[op->layer];
    const struct kv_layout layout = sis_kv_layout(step->kv_type, step->page_size, op->k_dim, op->v_dim);
    const uint32_t slot = (uint32_t)step->tables[op->table].slots[row];
    uint8_t *page = kv->base + slot / step->page_size * kv->page_bytes;
    for (uint32_t h = 0; h < op->n_head_kv; h++)
        run->kernels->store(&layout, at(run, op->src, row, op->src_at + h * op->k_dim),
                            at(run, op->src2, row, op->src2_at + h * op->v_dim), page + h * layout.bytes,
                            slot % step->page_size);
}

/* How the floats that a PREPARE writes are read: by the phase of linears that follows. */
static struct sis_read read_of(const struct run *run, const struct sis_op *prepare)
{
    const struct sis_op *op = prepare + 1, *end = run->program->ops + run->program->n_ops;
    struct sis_read read = {0, 0};
    while (op < end && op->kind != SIS_OP_LINEAR) op++;
    for (; op < end && op->kind == SIS_OP_LINEAR; op++) sis_reads(run->kernels, op->weight->format, &read);
    return read;
}

/* Rows [first, first + m), which lie at x: a group, where any form is that of tile functions. */
static void prepare(const struct run *run, const struct sis_op *op, const float *x, size_t stride, uint32_t first,
                    uint32_t m, int gathered)
{
    const size_t k = op->width;
    for (uint32_t form = SIS_Q8; form <= SIS_FLOAT; form *= 2) {
        if (!(op->flags & form)) continue;
        const struct many_rows *many = many_in(run, gathered, form);
        const struct unprepared some = {x, stride, first, m, run->n_rows[gathered], form, 0, k, k};
        if (many) many->prepare(&some, run->places[op->count][form == SIS_FLOAT]);
        else if (form == SIS_Q8) run->kernels->prepare_q8(x, stride, m, k, prepared_at(run, op->count, form, first, k));
        else
            sis_prepare_floats(run->kernels, read_of(run, op), x, stride, m, k,
                               prepared_at(run, op->count, form, first, k));
    }
}

static void prepare_foreign(const struct run *run, const struct sis_op *op, const struct group_of_rows *g, int gathered)
{
    const struct sis_linear *linear = op->weight->linear;
    struct sis_rows x = {at(run, op->src, 0, op->src_at), run->n_rows[gathered], op->width, stride_of(run, op->src)};
    linear->prepare(linear->self, &x, g->first, g->m, run->prepared[op->count]);
}

static void row_op(const struct run *run, const struct sis_op *op, uint32_t row, float *dst)
{
    const float *src = at(run, op->src, row, op->src_at);
    switch (op->kind) {
    case SIS_OP_NORM:
        for (uint32_t i = 0; i < op->count; i++)
            run->kernels->norm(src + i * op->width, dst + i * op->width, op->width, op);
        break;
    case SIS_OP_COPY:
        memcpy(dst, src, op->width * sizeof *dst);
        for (uint32_t i = 0; op->bias && i < op->width; i++) dst[i] += op->bias[i];
        break;
    case SIS_OP_ADD:
        for (uint32_t i = 0; i < op->width; i++) dst[i] += op->bias ? src[i] + op->bias[i] : src[i];
        break;
    case SIS_OP_ACT:
        run->kernels->activate(src, op->flags & SIS_GATED ? at(run, op->src2, row, op->src2_at) : NULL, dst, op->width,
                               op->activation);
        break;
    case SIS_OP_ROPE: {
        const struct sis_rotation *table = &run->step->rotations[op->rope];
        size_t half = op->n_rot / 2, offset = (size_t)run->step->positions[row] * half;
        for (uint32_t i = 0; i < op->count; i++)
            run->kernels->rotate(dst + i * op->width, half, table->cos + offset, table->sin + offset,
                                 (op->flags & SIS_NEOX) != 0);
        break;
    }
    case SIS_OP_STORE: store_keys(run, op, row); break;
    case SIS_OP_SCALE: {
        float factor = op->scale;
        if (op->flags & SIS_BY_POSITION) factor *= run->step->rotations[op->rope].cos[run->step->positions[row]];
        run->kernels->scale(dst, op->width, factor, op->cap);
        break;
    }
    case SIS_OP_CLAMP:
        for (uint32_t i = 0; i < op->width; i++) {
            if (dst[i] > op->cap) dst[i] = op->cap;
            if (dst[i] < -op->cap) dst[i] = -op->cap;
        }
        break;
    case SIS_OP_MULTIPLY:
        for (uint32_t i = 0; i < op->width; i++) dst[i] = src[i] * op->gain[i];
        break;
    case SIS_OP_HADAMARD:
        memcpy(dst, src, op->width * sizeof *dst);
        hadamard(dst, op->width, op->count);
        break;
    case SIS_OP_GATHER:
        memcpy(dst, at(run, op->src, (uint32_t)run->step->outputs[row], op->src_at), op->width * sizeof *dst);
        break;
    case SIS_OP_TAKE:
        sis_take_row(op->weight, (op->flags & SIS_BY_POSITION ? run->step->positions : run->step->tokens)[row], dst);
        break;
    case SIS_OP_ROUTE: route_row(run, op, row); break;
    case SIS_OP_COMBINE: combine_row(run, op, row); break;
    case SIS_OP_GATE: gate_row(run, op, row); break;
    default: break;
    }
}

/* An op that passes to the PREPARE after it, in scratch: of rows in forms of many at once one by one, so that each stays in
 * the first-level cache. */
static void pass_rows(const struct row_ops *ops, const struct sis_op *op, const struct group_of_rows *g)
{
    const struct run *run = ops->run;
    float *values = (float *)(void *)(run->scratch + ops->member * run->scratch_bytes);
    uint32_t at_a_time = 1;
    for (uint32_t form = SIS_Q8; form <= SIS_FLOAT; form *= 2)
        if (op[1].flags & form && !many_in(run, ops->gathered, form)) at_a_time = g->m;
    for (uint32_t r = 0; r < g->m; r += at_a_time) {
        for (uint32_t i = 0; i < at_a_time; i++) row_op(run, op, g->first + r + i, values + i * op->width);
        prepare(run, op + 1, values, op->width, g->first + r, at_a_time, ops->gathered);
    }
}

void do_rows(const struct row_ops *ops, uint32_t unit)
{
    const struct run *run = ops->run;
    const struct group_of_rows *g = &run->groups[ops->gathered][unit];
    for (uint32_t i = ops->first; i < ops->last; i++) {
        const struct sis_op *op = &run->program->ops[i];
        if (op->flags & SIS_PASSES) pass_rows(ops, &run->program->ops[i++], g);
        else if (op->kind == SIS_OP_PREPARE)
            prepare(run, op, at(run, op->src, g->first, op->src_at), stride_of(run, op->src), g->first, g->m,
                    ops->gathered);
        else if (op->kind == SIS_OP_PREPARE_FOREIGN) prepare_foreign(run, op, g, ops->gathered);
        else
            for (uint32_t row = g->first; row < g->first + g->m; row++)
                row_op(run, op, row, at(run, op->dst, row, op->dst_at));
    }
}
