/* Attention: units of one key head and a few of the (row, head) pairs that share it. Where a group has few such units,
 * each span of keys is a unit of its own, and what the spans leave is joined in a second phase. */
#include "run.h"

#define FEW 64   /* units of a group, before it is split along its keys */
#define FEWEST 4 /* for each thread, where rows are many */

/* How a group is cut: `pieces` of at most `most` pairs for each key head, and spans [first, first + n) if they are units
 * too. */
struct cut {
    const struct many_pairs *many; /* or NULL: few rows */
    uint32_t most, pieces;
    uint64_t first, n;
};

/* Whole scores are looked at by whoever watches, and those of many rows at once are in another order. */
static const struct many_pairs *many_of(const struct sis_step *step, const struct sis_group *group)
{
    const struct many_rows *many = sis_kernels()->many;
    if (!many || !many->attention || is_invariant(step) || step->watch) return NULL;
    return group->n_rows < many->attention->from ? NULL : many->attention;
}

static struct cut cut_of(const struct sis_step *step, const struct sis_op *op, uint32_t g)
{
    const struct sis_group *group = &step->tables[op->table].groups[g];
    const uint64_t start = group->length - group->n_rows; /* the first row's position */
    const uint64_t lowest = op->window && start + 1 > op->window ? start + 1 - op->window : 0;
    struct cut c = {many_of(step, group), .most = sis_kernels()->max_rows, .first = lowest / SPAN};
    const uint32_t pairs = group->n_rows * (op->n_head / op->n_head_kv), few = c.many ? FEWEST * step->n_threads : FEW;
    if (c.many) {
        const uint32_t fair = (uint32_t)((uint64_t)pairs * op->n_head_kv / few + 31) / 32 * 32;
        c.most = fair > c.many->most ? c.many->most : fair < 128 ? 128 : fair;
    }
    c.pieces = (pairs + c.most - 1) / c.most;
    c.n = (group->length - 1) / SPAN - c.first + 1;
    if (c.pieces * op->n_head_kv >= few) c.n = 1;
    return c;
}

size_t sis_attend_bytes(const struct sis_step *step, const struct sis_op *op)
{
    const struct kv_layout layout = sis_kv_layout(step->kv_type, step->page_size, op->k_dim, op->v_dim);
    size_t parts = 0;
    for (uint32_t g = 0; g < step->n_groups; g++) {
        struct cut c = cut_of(step, op, g);
        if (c.n > 1) parts += c.n * step->tables[op->table].groups[g].n_rows * op->n_head;
    }
    return up(parts * sis_part_floats(&layout) * sizeof(float));
}

size_t sis_attend_scratch(const struct sis_step *step, const struct sis_op *op)
{
    const struct kv_layout layout = sis_kv_layout(step->kv_type, step->page_size, op->k_dim, op->v_dim);
    size_t bytes = 0;
    for (uint32_t g = 0; g < step->n_groups; g++) {
        struct cut c = cut_of(step, op, g);
        if (c.many) raise_to(&bytes, up(c.many->scratch_bytes(&layout, c.most)));
    }
    return bytes;
}

/* A unit of the phase: pairs [first, last) of one key head, and a span or, where n is 1, everything. */
struct unit {
    const struct sis_group *group;
    const struct many_pairs *many;
    uint32_t head, first, last;
    uint64_t first_span, span, n; /* span counts from the first */
    float *parts;                 /* of the group, if it is split: [n][n_head_kv][pairs of a head] */
};

/* How many units there are: all, or those that join what the spans left. */
static uint32_t count(const struct run *run, const struct sis_op *op, int joined)
{
    uint64_t n = 0;
    for (uint32_t g = 0; g < run->step->n_groups; g++) {
        const struct cut c = cut_of(run->step, op, g);
        n += c.pieces * op->n_head_kv * (joined ? c.n > 1 : c.n);
    }
    return (uint32_t)n;
}

/* Unit number `index` of those. Heads come one after another, so that one's keys stay in the cache; its last rows,
 * which see the most keys, come first. */
static struct unit find(const struct run *run, const struct attention *job, const struct sis_op *op, uint64_t index,
                        int joined)
{
    const uint32_t shared = op->n_head / op->n_head_kv;
    float *parts = run->parts;
    for (uint32_t g = 0;; g++) {
        const struct sis_group *group = &run->step->tables[op->table].groups[g];
        const struct cut c = cut_of(run->step, op, g);
        const uint64_t spans = joined ? c.n > 1 : c.n, units = c.pieces * op->n_head_kv * spans;
        if (index < units) {
            uint32_t piece = c.pieces - 1 - (uint32_t)(index / spans % c.pieces), pairs = group->n_rows * shared;
            return (struct unit){
                .group = group,
                .many = c.many,
                .head = (uint32_t)(index / spans / c.pieces),
                .first = piece * c.most,
                .last = piece * c.most + c.most < pairs ? piece * c.most + c.most : pairs,
                .first_span = c.first,
                .span = index % spans,
                .n = c.n,
                .parts = parts,
            };
        }
        index -= units;
        if (c.n > 1) parts += c.n * group->n_rows * op->n_head * sis_part_floats(&job->layout);
    }
}

static float *watch_of(const struct sis_step *step, const struct sis_op *op)
{
    if (!step->watch || !op->watched) return NULL;
    const struct sis_group *group = step->tables[op->table].groups;
    return step->watch + (size_t)(op->watched - 1) * group->n_rows * pages_of(group, step->page_size) * 2;
}

void attend_phase(struct run *run, struct team *team, const struct sis_op *op, uint32_t member)
{
    const struct sis_step *step = run->step;
    struct attention job = {
        .kv = &step->kv[op->layer],
        .q = at(run, op->src, 0, op->src_at),
        .out = at(run, op->dst, 0, op->dst_at),
        .q_stride = stride_of(run, op->src),
        .out_stride = stride_of(run, op->dst),
        .n_head = op->n_head,
        .n_head_kv = op->n_head_kv,
        .window = op->window,
        .scale = op->scale,
        .cap = op->cap,
        .slopes = op->slopes,
        .sinks = op->sinks,
        .watch = watch_of(step, op),
        .rounded = (op->flags & SIS_Q8) != 0,
        .layout = sis_kv_layout(step->kv_type, step->page_size, op->k_dim, op->v_dim),
    };
    const struct sis_group *groups = step->tables[op->table].groups;
    const uint32_t shared = op->n_head / op->n_head_kv;
    const struct kernels *kernels = run->kernels;
    const size_t part = sis_part_floats(&job.layout);
    uint8_t *scratch = run->scratch + member * run->scratch_bytes;
    for (int joined = 0; joined < 2; joined++) {
        const uint32_t n = count(run, op, joined);
        if (joined && n) team_barrier(team);
        for (uint32_t index; (index = team_claim(team, member, n)) < n;) {
            struct unit u = find(run, &job, op, index, joined);
            const size_t stride = u.group->n_rows * op->n_head * part; /* from span to span */
            float *parts = u.parts + (u.head * u.group->n_rows * shared + u.first) * part;
            job.group = u.group;
            job.next = u.group + 1 < groups + step->n_groups ? u.group + 1 : NULL;
            for (uint32_t m; u.first < u.last; u.first += m, parts += m * part) {
                const uint64_t span = u.first_span + u.span;
                float *of_span = parts + u.span * stride;
                m = u.many ? u.last - u.first : sis_group_rows(u.last - u.first, kernels->max_rows);
                if (joined) kernels->join(&job, u.head, u.first, m, parts, stride, u.n);
                else if (u.many && u.n == 1) u.many->attend(&job, u.head, u.first, m, scratch);
                else if (u.many) u.many->attend_span(&job, u.head, u.first, m, span, of_span, scratch);
                else if (u.n == 1) kernels->attend(&job, u.head, u.first, m);
                else kernels->attend_span(&job, u.head, u.first, m, span, of_span);
            }
        }
    }
}
