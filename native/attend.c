/* Attention: units of one key head and a few of the (row, head) pairs that share it. */
#include "run.h"

void attend_phase(struct run *run, struct team *team, const struct sis_op *op, uint32_t member)
{
    const struct sis_step *step = run->step;
    struct attention job = {
        .kv = &step->kv[op->layer], .q = at(run, op->src, 0, op->src_at), .out = at(run, op->dst, 0, op->dst_at),
        .q_stride = stride_of(run, op->src), .out_stride = stride_of(run, op->dst), .kv_type = step->kv_type,
        .page_size = step->page_size, .n_head = op->n_head, .n_head_kv = op->n_head_kv, .k_dim = op->k_dim,
        .v_dim = op->v_dim, .window = op->window, .scale = op->scale, .cap = op->cap,
    };
    const uint32_t most = run->kernels->max_rows, shared = op->n_head / op->n_head_kv;
    uint32_t n = 0;
    for (uint32_t g = 0; g < step->n_groups; g++)
        n += (step->groups[g].n_rows * shared + most - 1) / most * op->n_head_kv;
    for (uint32_t unit; (unit = team_claim(team, member, n)) < n;) {
        uint32_t g = 0, pieces = 0;
        for (;; g++) {
            pieces = (step->groups[g].n_rows * shared + most - 1) / most;
            if (unit < pieces * op->n_head_kv) break;
            unit -= pieces * op->n_head_kv;
        }
        job.group = &step->groups[g];
        /* The last rows see the most keys: they come first, so that no thread is left with a long unit at the end. */
        uint32_t piece = pieces - 1 - unit / op->n_head_kv, first = piece * most;
        uint32_t stop = first + most < job.group->n_rows * shared ? first + most : job.group->n_rows * shared;
        while (first < stop) {
            uint32_t m = sis_group_rows(stop - first, most);
            run->kernels->attend(&job, unit % op->n_head_kv, first, m);
            first += m;
        }
    }
}
