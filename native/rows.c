/* Operations on rows: everything of a program that is neither a linear nor attention. */
#include "run.h"
#include <string.h>

static void store_keys(const struct run *run, const struct sis_op *op, uint32_t row)
{
    const struct sis_step *step = run->step;
    const struct sis_kv *kv = &step->kv[op->layer];
    const size_t size = step->kv_type == SIS_KV_F16 ? 2 : 4, slot = (size_t)step->slots[row], page_size = step->page_size;
    const size_t v_pad = (op->v_dim + TILE - 1) / TILE * TILE;
    uint8_t *keys = kv->base + slot / page_size * kv->page_bytes + slot % page_size * size;
    uint8_t *values = kv->base + slot / page_size * kv->page_bytes + op->n_head_kv * op->k_dim * page_size * size +
                      slot % page_size * v_pad * size;
    for (uint32_t h = 0; h < op->n_head_kv; h++) {
        const float *k = at(run, op->src, row, op->src_at + h * op->k_dim);
        const float *v = at(run, op->src2, row, op->src2_at + h * op->v_dim);
        uint8_t *key = keys + h * op->k_dim * page_size * size, *value = values + h * page_size * v_pad * size;
        if (size == 2) {
            uint16_t half[MAX_HEAD];
            run->kernels->to_f16(k, half, op->k_dim);
            for (uint32_t d = 0; d < op->k_dim; d++) memcpy(key + d * page_size * 2, &half[d], 2);
            run->kernels->to_f16(v, half, op->v_dim);
            memcpy(value, half, (size_t)op->v_dim * 2);
        } else {
            for (uint32_t d = 0; d < op->k_dim; d++) memcpy(key + d * page_size * 4, &k[d], 4);
            memcpy(value, v, (size_t)op->v_dim * 4);
        }
    }
}

static void prepare(const struct run *run, const struct sis_op *op, const struct group_of_rows *g, int gathered)
{
    const float *x = at(run, op->src, g->first, op->src_at);
    size_t stride = stride_of(run, op->src), k = op->width;
    const struct many_rows *many = run->many[gathered];
    uint32_t at_once = many_forms(run, gathered, op->flags), single = op->flags & ~at_once;
    if (at_once & SIS_Q8) many->prepare(x, stride, g->first, g->m, k, SIS_Q8, run->many_q8);
    if (at_once & SIS_FLOAT) many->prepare(x, stride, g->first, g->m, k, SIS_FLOAT, run->many_floats);
    if (single & SIS_Q8) run->kernels->prepare_q8(x, stride, g->m, k, run->q8 + g->first * (k / BLOCK));
    if (single & SIS_FLOAT) run->kernels->prepare_float(x, stride, g->m, k, run->floats + g->first * k);
}

static void row_op(const struct run *run, const struct sis_op *op, uint32_t row)
{
    float *dst = at(run, op->dst, row, op->dst_at);
    const float *src = at(run, op->src, row, op->src_at);
    switch (op->kind) {
    case SIS_OP_NORM:
        for (uint32_t i = 0; i < op->count; i++)
            run->kernels->norm(src + i * op->width, dst + i * op->width, op->width, op);
        break;
    case SIS_OP_COPY: memcpy(dst, src, op->width * sizeof *dst); break;
    case SIS_OP_ADD:
        for (uint32_t i = 0; i < op->width; i++) dst[i] += src[i];
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
    case SIS_OP_SCALE: run->kernels->scale(dst, op->width, op->scale, op->cap); break;
    case SIS_OP_GATHER:
        memcpy(dst, at(run, op->src, (uint32_t)run->step->outputs[row], op->src_at), op->width * sizeof *dst);
        break;
    default: break;
    }
}

void do_rows(const struct row_ops *ops, uint32_t unit)
{
    const struct run *run = ops->run;
    const struct group_of_rows *g = &run->groups[ops->gathered][unit];
    for (uint32_t i = ops->first; i < ops->last; i++) {
        const struct sis_op *op = &run->program->ops[i];
        if (op->kind == SIS_OP_PREPARE) prepare(run, op, g, ops->gathered);
        else
            for (uint32_t r = 0; r < g->m; r++) row_op(run, op, g->first + r);
    }
}
