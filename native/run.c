/* Runs a program: phases of row operations, of linears, and of attention, with a barrier after each. How a phase is
 * cut into units depends on shapes alone; which thread gets a unit changes nothing. */
#include "kernels.h"
#include "team.h"
#include <stdatomic.h>
#include <string.h>

#define TILES_PER_UNIT 4

struct group_of_rows {
    uint32_t first, m;
};

struct run {
    const struct sis_program *program;
    const struct sis_step *step;
    const struct kernels *kernels;
    float *registers[SIS_OUT];
    size_t strides[SIS_OUT];
    struct q8_block *q8;
    float *floats;
    struct group_of_rows *groups[2]; /* of the step's rows, of its output rows */
    uint32_t n_groups[2];
    uint8_t *scratch; /* one tile of raw weights, and a decoded row, for each thread */
    size_t scratch_bytes;
    atomic_int error;
};

static size_t up(size_t bytes) { return (bytes + 63) / 64 * 64; }

struct sizes {
    size_t rows, widest_q8, widest_float, scratch, registers, total;
};

static struct sizes measure(const struct sis_program *p, size_t n, size_t n_out, size_t n_threads)
{
    struct sizes s = {.rows = n > n_out ? n : n_out};
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const struct sis_op *op = &p->ops[i];
        if (op->kind == SIS_OP_PREPARE && op->flags & SIS_Q8 && op->width > s.widest_q8) s.widest_q8 = op->width;
        if (op->kind == SIS_OP_PREPARE && op->flags & SIS_FLOAT && op->width > s.widest_float) s.widest_float = op->width;
        if (op->kind == SIS_OP_LINEAR && op->weight->raw) {
            size_t bytes = sis_one_tile_bytes(op->weight->format, op->weight->n_cols) + up(op->weight->n_cols * 4);
            if (bytes > s.scratch) s.scratch = bytes;
        }
    }
    for (uint32_t r = 0; r < p->n_registers; r++) s.registers += up((size_t)p->register_cols[r] * 4) * s.rows;
    s.total = s.registers + up(s.rows * s.widest_q8 * 2) + up(s.rows * s.widest_float * 4) +
              up(n * sizeof(struct group_of_rows)) + up(n_out * sizeof(struct group_of_rows)) + s.scratch * n_threads;
    return s;
}

uint64_t sis_workspace(const struct sis_program *program, uint64_t n, uint64_t n_out, uint32_t n_threads)
{
    return measure(program, n, n_out, n_threads).total + 64;
}

static float *at(const struct run *run, uint32_t reg, uint32_t row, uint32_t column)
{
    if (reg == SIS_OUT) return run->step->out + (size_t)row * run->program->n_out_cols + column;
    return run->registers[reg] + (size_t)row * run->strides[reg] + column;
}

static size_t stride_of(const struct run *run, uint32_t reg)
{
    return reg == SIS_OUT ? run->program->n_out_cols : run->strides[reg];
}

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

static void prepare(const struct run *run, const struct sis_op *op, const struct group_of_rows *g)
{
    const float *x = at(run, op->src, g->first, op->src_at);
    size_t stride = stride_of(run, op->src), k = op->width;
    if (op->flags & SIS_Q8) run->kernels->prepare_q8(x, stride, g->m, k, run->q8 + g->first * (k / BLOCK));
    if (op->flags & SIS_FLOAT) run->kernels->prepare_float(x, stride, g->m, k, run->floats + g->first * k);
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

static int is_row_op(const struct sis_op *op) { return op->kind != SIS_OP_LINEAR && op->kind != SIS_OP_ATTEND; }

struct row_ops {
    const struct run *run;
    uint32_t first, last;
    int gathered;
};

static void do_rows(const struct row_ops *ops, uint32_t unit)
{
    const struct run *run = ops->run;
    const struct group_of_rows *g = &run->groups[ops->gathered][unit];
    for (uint32_t i = ops->first; i < ops->last; i++) {
        const struct sis_op *op = &run->program->ops[i];
        if (op->kind == SIS_OP_PREPARE) prepare(run, op, g);
        else
            for (uint32_t r = 0; r < g->m; r++) row_op(run, op, g->first + r);
    }
}

static void do_only_rows(void *ops) { do_rows(ops, 0); }

static uint32_t linear_units(const struct sis_op *op)
{
    if (op->weight->format == SIS_FOREIGN) return op->weight->linear->parts;
    uint64_t tiles = (op->weight->n_rows + TILE - 1) / TILE;
    return (uint32_t)((tiles + TILES_PER_UNIT - 1) / TILES_PER_UNIT);
}

static void write_tile(const struct run *run, const struct sis_op *op, const struct group_of_rows *g, size_t first,
                       const float *acc)
{
    size_t n = op->weight->n_rows - first < TILE ? op->weight->n_rows - first : TILE;
    for (uint32_t m = 0; m < g->m; m++) {
        float *y = at(run, op->dst, g->first + m, op->dst_at) + first;
        const float *a = acc + m * TILE;
        if (op->bias && op->flags & SIS_ADD)
            for (size_t i = 0; i < n; i++) y[i] += a[i] + op->bias[first + i];
        else if (op->bias)
            for (size_t i = 0; i < n; i++) y[i] = a[i] + op->bias[first + i];
        else if (op->flags & SIS_ADD)
            for (size_t i = 0; i < n; i++) y[i] += a[i];
        else if (n == TILE) memcpy(y, a, TILE * sizeof *y);
        else memcpy(y, a, n * sizeof *y);
    }
}

static void linear_unit(struct run *run, const struct sis_op *op, uint32_t unit, int gathered, uint32_t member)
{
    const struct sis_weight *w = op->weight;
    if (w->format == SIS_FOREIGN) {
        uint64_t n = gathered ? run->step->n_out : run->step->n;
        struct sis_rows x = {at(run, op->src, 0, op->src_at), n, w->n_cols, stride_of(run, op->src)};
        struct sis_rows y = {at(run, op->dst, 0, op->dst_at), n, w->n_rows, stride_of(run, op->dst)};
        int32_t error = w->linear->run(w->linear->self, &x, &y, unit, w->linear->parts);
        if (error) atomic_store(&run->error, error);
        return;
    }
    float acc[MAX_GROUP * TILE] __attribute__((aligned(64)));
    const size_t k = w->n_cols, bytes = sis_one_tile_bytes(w->format, k), n_tiles = (w->n_rows + TILE - 1) / TILE;
    const int is_float = w->format <= SIS_BF16 || w->format == SIS_DECODED;
    const tile_fn tile_of = run->kernels->tile[w->format];
    size_t t = (size_t)unit * TILES_PER_UNIT, stop = t + TILES_PER_UNIT < n_tiles ? t + TILES_PER_UNIT : n_tiles;
    uint8_t *scratch = run->scratch + member * run->scratch_bytes;
    /* Packed: all tiles of the unit for each group of rows, so that the rows stay in the first-level cache. Raw: all
     * groups for each tile, which is made once. */
    if (w->raw) {
        for (; t < stop; t++) {
            sis_pack_tile(w, t, scratch, (float *)(void *)(scratch + bytes));
            for (uint32_t i = 0; i < run->n_groups[gathered]; i++) {
                const struct group_of_rows *g = &run->groups[gathered][i];
                const void *x = is_float ? (const void *)(run->floats + g->first * k)
                                         : (const void *)(run->q8 + g->first * (k / BLOCK));
                tile_of(scratch, x, g->m, k, acc);
                write_tile(run, op, g, t * TILE, acc);
            }
        }
        return;
    }
    for (uint32_t i = 0; i < run->n_groups[gathered]; i++) {
        const struct group_of_rows *g = &run->groups[gathered][i];
        const void *x = is_float ? (const void *)(run->floats + g->first * k)
                                 : (const void *)(run->q8 + g->first * (k / BLOCK));
        for (size_t j = t; j < stop; j++) {
            tile_of(w->tiles + j * bytes, x, g->m, k, acc);
            write_tile(run, op, g, j * TILE, acc);
        }
    }
}

static void linear_phase(struct run *run, struct team *team, uint32_t first, uint32_t last, int gathered, uint32_t member)
{
    for (uint32_t unit;;) {
        unit = team_claim(team);
        uint32_t i = first;
        while (i < last && unit >= linear_units(&run->program->ops[i])) unit -= linear_units(&run->program->ops[i++]);
        if (i == last) return;
        linear_unit(run, &run->program->ops[i], unit, gathered, member);
    }
}

static void attend_phase(struct run *run, struct team *team, const struct sis_op *op)
{
    const struct sis_step *step = run->step;
    struct attention job = {
        .kv = &step->kv[op->layer], .q = at(run, op->src, 0, op->src_at), .out = at(run, op->dst, 0, op->dst_at),
        .q_stride = stride_of(run, op->src), .out_stride = stride_of(run, op->dst), .kv_type = step->kv_type,
        .page_size = step->page_size, .n_head = op->n_head, .n_head_kv = op->n_head_kv, .k_dim = op->k_dim,
        .v_dim = op->v_dim, .window = op->window, .scale = op->scale, .cap = op->cap,
    };
    const uint32_t most = run->kernels->max_rows, shared = op->n_head / op->n_head_kv;
    for (uint32_t unit;;) {
        unit = team_claim(team);
        uint32_t g = 0, pieces = 0;
        for (; g < step->n_groups; g++) {
            pieces = (step->groups[g].n_rows * shared + most - 1) / most;
            if (unit < pieces * op->n_head_kv) break;
            unit -= pieces * op->n_head_kv;
        }
        if (g == step->n_groups) return;
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

/* Where the phase that begins at op `first` ends. Gathering begins a new set of rows, so it begins a phase. */
static uint32_t end_of_phase(const struct sis_program *program, uint32_t first)
{
    const struct sis_op *ops = program->ops;
    uint32_t end = first + 1;
    if (is_row_op(&ops[first]))
        while (end < program->n_ops && is_row_op(&ops[end]) && ops[end].kind != SIS_OP_GATHER) end++;
    else if (ops[first].kind == SIS_OP_LINEAR)
        while (end < program->n_ops && ops[end].kind == SIS_OP_LINEAR) end++;
    return end;
}

static void run_member(void *context, struct team *team, uint32_t member)
{
    struct run *run = context;
    const struct sis_program *program = run->program;
    int gathered = 0;
    for (uint32_t i = 0; i < program->n_ops;) {
        const struct sis_op *op = &program->ops[i];
        uint32_t end = end_of_phase(program, i);
        gathered |= op->kind == SIS_OP_GATHER;
        if (gathered && !run->step->n_out) return;
        if (is_row_op(op)) {
            struct row_ops rows = {run, i, end, gathered};
            for (uint32_t unit; (unit = team_claim(team)) < run->n_groups[gathered];) do_rows(&rows, unit);
        } else if (op->kind == SIS_OP_LINEAR)
            linear_phase(run, team, i, end, gathered, member);
        else
            attend_phase(run, team, op);
        /* Row operations on a single group that come next are done by whoever reaches the barrier last. */
        struct row_ops next = {run, end, end, gathered};
        if (end < program->n_ops && is_row_op(&program->ops[end])) {
            int then = gathered | (program->ops[end].kind == SIS_OP_GATHER);
            if (run->n_groups[then] == 1) {
                gathered = next.gathered = then;
                next.last = end_of_phase(program, end);
            }
        }
        team_barrier_then(team, next.last > end ? do_only_rows : NULL, &next);
        i = next.last;
    }
}

static uint32_t cut(struct group_of_rows *groups, uint32_t n, uint32_t max_rows)
{
    uint32_t count = 0;
    for (uint32_t row = 0; row < n; count++) {
        groups[count] = (struct group_of_rows){row, sis_group_rows(n - row, max_rows)};
        row += groups[count].m;
    }
    return count;
}

int32_t sis_run(const struct sis_program *program, const struct sis_step *step)
{
    struct run run = {.program = program, .step = step, .kernels = sis_kernels()};
    struct sizes sizes = measure(program, step->n, step->n_out, step->n_threads);
    uint8_t *p = step->workspace;
    for (uint32_t r = 0; r < program->n_registers; r++) {
        size_t row_bytes = up((size_t)program->register_cols[r] * 4);
        run.registers[r] = (float *)(void *)p;
        run.strides[r] = row_bytes / 4;
        p += row_bytes * sizes.rows;
    }
    run.q8 = (struct q8_block *)(void *)p;
    p += up(sizes.rows * sizes.widest_q8 * 2);
    run.floats = (float *)(void *)p;
    p += up(sizes.rows * sizes.widest_float * 4);
    run.groups[0] = (struct group_of_rows *)(void *)p;
    p += up(step->n * sizeof(struct group_of_rows));
    run.groups[1] = (struct group_of_rows *)(void *)p;
    p += up(step->n_out * sizeof(struct group_of_rows));
    run.scratch = p;
    run.scratch_bytes = sizes.scratch;
    run.n_groups[0] = cut(run.groups[0], step->n, run.kernels->max_rows);
    run.n_groups[1] = cut(run.groups[1], step->n_out, run.kernels->max_rows);
    size_t width = program->register_cols[0];
    for (uint32_t r = 0; r < step->n; r++)
        memcpy(run.registers[0] + r * run.strides[0], step->hidden + r * width, width * sizeof(float));
    team_run(step->n_threads, run_member, &run);
    return atomic_load(&run.error);
}

/* Packing and reading, in the same pool. */

struct pack_job {
    const struct sis_weight *weight;
    uint8_t *tiles;
};

static void pack_member(void *context, struct team *team, uint32_t member)
{
    (void)member;
    const struct pack_job *job = context;
    size_t bytes = sis_one_tile_bytes(job->weight->format, job->weight->n_cols);
    size_t n_tiles = (job->weight->n_rows + TILE - 1) / TILE;
    for (size_t t; (t = team_claim(team)) < n_tiles;) sis_pack_tile(job->weight, t, job->tiles + t * bytes, NULL);
}

void sis_pack(const struct sis_weight *weight, uint8_t *tiles, uint32_t n_threads)
{
    struct pack_job job = {weight, tiles};
    team_run(n_threads, pack_member, &job);
}

struct read_job {
    const uint8_t *data;
    uint64_t bytes;
    atomic_ullong sum;
};

static void read_member(void *context, struct team *team, uint32_t member)
{
    (void)member;
    struct read_job *job = context;
    const uint64_t piece = 1 << 18;
    for (uint64_t i; (i = team_claim(team) * piece) < job->bytes;) {
        uint64_t n = job->bytes - i < piece ? job->bytes - i : piece;
        atomic_fetch_xor(&job->sum, sis_kernels()->sum(job->data + i, n));
    }
}

uint64_t sis_read(const uint8_t *data, uint64_t bytes, uint32_t n_threads)
{
    struct read_job job = {.data = data, .bytes = bytes};
    uint64_t start = team_now();
    team_run(n_threads, read_member, &job);
    uint64_t time = team_now() - start;
    return time + (atomic_load(&job.sum) == 1); /* so that the reading cannot be left out */
}
