/* Runs a program: phases of row operations, of linears, and of attention, with a barrier after each. How a phase is
 * cut into units depends on shapes alone; which thread gets a unit changes nothing. */
#include "run.h"
#include <string.h>

/* The largest of each kind of workspace that any op wants, in bytes unless it says rows, few or width. */
struct sizes {
    size_t rows, few_q8, few_floats, widest_q8, float_row, many_x[2][2], many_scratch, raw_scratch, row_scratch,
        scratch, values, parts, attention;
    size_t prepared[SIS_PREPARED], values_at;
    struct experts_room experts;
};

static int is_row_op(const struct sis_op *op)
{
    return op->kind != SIS_OP_LINEAR && op->kind != SIS_OP_ATTEND && op->kind != SIS_OP_EXPERTS;
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

/* What ops want of the step that is to be run; `strides` are columns of registers until these are laid out. */
static struct sizes measure(struct run *run)
{
    const struct sis_program *p = run->program;
    const struct sis_step *step = run->step;
    struct sizes s = {.rows = step->n > step->n_out ? step->n : step->n_out};
    int gathered = 0, passes = 0;
    for (uint32_t r = 0; r < p->n_registers; r++) run->strides[r] = p->registers[r].cols;
    for (uint32_t form = SIS_Q8; form <= SIS_FLOAT; form *= 2)
        for (int i = 0; i < 2; i++)
            if (!many_in(run, i, form)) raise_to(form == SIS_Q8 ? &s.few_q8 : &s.few_floats, run->n_rows[i]);
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const struct sis_op *op = &p->ops[i];
        gathered |= op->kind == SIS_OP_GATHER;
        const uint32_t n = run->n_rows[gathered];
        if (op->kind == SIS_OP_PREPARE) {
            if (op->flags & SIS_Q8) raise_to(&s.widest_q8, op->width);
            if (op->flags & SIS_FLOAT) raise_to(&s.float_row, sis_float_row(sis_kernels(), op->width));
            for (uint32_t form = SIS_Q8; form <= SIS_FLOAT; form *= 2) {
                const struct many_rows *many = many_in(run, gathered, form);
                if (!many || !(op->flags & form)) continue;
                raise_to(&s.many_x[op->count][form == SIS_FLOAT], up(many->x_bytes(n, op->width, form)));
                raise_to(&s.many_scratch, up(many->scratch_bytes(n, op->width, form)));
            }
        }
        if (op->kind == SIS_OP_LINEAR && op->weight->raw) {
            size_t unit = sis_one_tile_bytes(op->weight->format, op->weight->n_cols) << LOG_TILES;
            size_t decoded = op->weight->format == SIS_DECODED ? TILE * op->weight->n_cols * sizeof(float) : 0;
            const size_t units = sis_any_many(sis_kernels(), n) ? raw_units(op->weight) : 1;
            raise_to(&s.raw_scratch, units * unit + up(decoded));
        }
        if (op->kind == SIS_OP_LINEAR && (i == 0 || p->ops[i - 1].kind != SIS_OP_LINEAR))
            passes = can_pass(run, i, end_of_phase(p, i), gathered);
        if (op->flags & SIS_PASSES && op->kind == SIS_OP_LINEAR) {
            /* In any case: rows may lie in tiles by the time that the step runs, and pass then. */
            const struct many_rows *many = many_in(run, gathered, form_of(op->weight));
            if (many) raise_to(&s.values, passing_bytes(many, n));
            if (!passes) raise_to(&run->strides[op->dst], op->dst_at + op->weight->n_rows);
        } else if (op->flags & SIS_PASSES)
            raise_to(&s.row_scratch, up((size_t)sis_kernels()->max_rows * op->width * sizeof(float)));
        if (op->kind == SIS_OP_PREPARE_FOREIGN) {
            const struct sis_linear *linear = op->weight->linear;
            raise_to(&s.prepared[op->count], up(linear->prepared_bytes(linear->self, n)));
        }
        if (op->kind == SIS_OP_EXPERTS) experts_room(op, step->n, is_invariant(step), &s.experts);
        if (op->kind == SIS_OP_ATTEND) {
            raise_to(&s.parts, sis_attend_bytes(step, op));
            raise_to(&s.attention, sis_attend_scratch(step, op));
        }
    }
    raise_to(&s.many_scratch, s.experts.many_scratch);
    raise_to(&s.raw_scratch, s.experts.raw_scratch);
    s.scratch = s.many_scratch + s.raw_scratch;
    raise_to(&s.scratch, s.experts.gathered);
    raise_to(&s.scratch, s.attention);
    raise_to(&s.scratch, s.row_scratch);
    raise_to(&s.values, s.experts.gates);
    s.values_at = s.scratch;
    s.scratch += s.values;
    return s;
}

/* A workspace while it is given out; without a base it is only counted. */
struct room {
    uint8_t *base;
    size_t used;
};

static void *place(struct room *room, size_t bytes)
{
    void *found = room->base ? room->base + room->used : NULL;
    room->used += bytes;
    return found;
}

/* Where everything of a step lies from `base` on; the bytes that it takes. */
static size_t lay_out(struct run *run, struct expert_order *order, const struct sizes *s, uint8_t *base)
{
    const struct sis_program *program = run->program;
    struct room whole = {base, 0}, *room = &whole;
    for (uint32_t r = 0; r < program->n_registers; r++) {
        const size_t rows = program->registers[r].output ? run->n_rows[1] : s->rows;
        run->strides[r] = up(run->strides[r] * 4) / 4;
        run->registers[r] = place(room, run->strides[r] * 4 * rows);
    }
    run->groups[0] = place(room, up(run->step->n * sizeof(struct group_of_rows)));
    run->groups[1] = place(room, up(run->step->n_out * sizeof(struct group_of_rows)));
    /* Linears, experts and attention are phases of their own, so what each needs lies in the same place. */
    struct room of_linears = *room, of_experts = *room, of_attention = *room;
    run->q8 = place(&of_linears, up(s->few_q8 * s->widest_q8 * 2));
    run->floats = place(&of_linears, up(s->few_floats * s->float_row * 4));
    for (int i = 0; i < 4; i++) run->many_x[i / 2][i % 2] = place(&of_linears, s->many_x[i / 2][i % 2]);
    for (int i = 0; i < SIS_PREPARED; i++) run->prepared[i] = place(&of_linears, s->prepared[i]);
    uint8_t *of_order = place(&of_experts, s->experts.order);
    if (of_order) *order = experts_order(&s->experts, of_order);
    run->order = order;
    struct room of_product[2] = {of_experts, of_experts}; /* the first is done with its rows when the second begins */
    for (int product = 0; product < 2; product++) {
        struct room *its = &of_product[product];
        for (int i = 0; i < N_ROW_FORMS; i++) run->expert_x[product][i] = place(its, s->experts.rows[product][i]);
        for (int i = 0; i < 2; i++) run->expert_many[product][i] = place(its, s->experts.many[product][i]);
        if (product) { /* combined beside row operations that prepare the rows of the linears which follow */
            raise_to(&its->used, of_linears.used);
            run->expert_out = place(its, s->experts.out);
        }
        raise_to(&of_experts.used, its->used);
    }
    run->parts = place(&of_attention, s->parts);
    raise_to(&room->used, of_linears.used);
    raise_to(&room->used, of_experts.used);
    raise_to(&room->used, of_attention.used);
    run->scratch = place(room, s->scratch * (run->step->n_threads < MAX_THREADS ? run->step->n_threads : MAX_THREADS));
    run->scratch_bytes = s->scratch;
    run->raw_at = s->many_scratch;
    run->values_at = s->values_at;
    place(room, 64); /* the last values may be read as a whole vector */
    return room->used;
}

static struct run run_of(const struct sis_program *program, const struct sis_step *step)
{
    struct run run = {.program = program, .step = step, .kernels = sis_kernels(), .n_rows = {step->n, step->n_out}};
    for (int i = 0; i < 2; i++)
        for (uint32_t form = SIS_Q8; form <= SIS_FLOAT; form *= 2)
            run.many[i][form == SIS_FLOAT] = sis_many_for(run.kernels, run.n_rows[i], form, is_invariant(step));
    return run;
}

uint64_t sis_workspace(const struct sis_program *program, const struct sis_step *step)
{
    struct run run = run_of(program, step);
    struct expert_order order;
    const struct sizes sizes = measure(&run);
    return lay_out(&run, &order, &sizes, NULL);
}

static void do_only_rows(void *context)
{
    const struct row_ops *ops = context;
    const struct sis_program *program = ops->run->program;
    do_rows(ops, 0);
    if (ops->last < program->n_ops && program->ops[ops->last].kind == SIS_OP_EXPERTS)
        experts_begin(ops->run, &program->ops[ops->last]);
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
            struct row_ops rows = {run, i, end, gathered, member};
            const uint32_t n = run->n_groups[gathered];
            for (uint32_t unit; (unit = team_claim(team, member, n)) < n;) do_rows(&rows, unit);
        } else if (op->kind == SIS_OP_LINEAR && can_pass(run, i, end, gathered)) {
            passing_phase(run, team, i, end, gathered, member);
            end += 2;
        } else if (op->kind == SIS_OP_LINEAR) linear_phase(run, team, i, end, gathered, member);
        else if (op->kind == SIS_OP_EXPERTS) experts_phase(run, team, op, member);
        else attend_phase(run, team, op, member);
        /* Row operations on a single group that come next are done by whoever reaches the barrier last. */
        struct row_ops next = {run, end, end, gathered, member};
        if (end < program->n_ops && is_row_op(&program->ops[end])) {
            int then = gathered | (program->ops[end].kind == SIS_OP_GATHER);
            if (run->n_groups[then] == 1) {
                gathered = next.gathered = then;
                next.last = end_of_phase(program, end);
            }
        }
        struct span ahead = {NULL, 0};
        if (next.last < program->n_ops && program->ops[next.last].kind == SIS_OP_LINEAR)
            ahead = linear_ahead(run, team, next.last, end_of_phase(program, next.last), gathered, member);
        team_barrier_then(team, next.last > end ? do_only_rows : NULL, &next, ahead);
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
    struct run run = run_of(program, step);
    struct expert_order order = {0};
    const struct sizes sizes = measure(&run);
    if (step->workspace_bytes < lay_out(&run, &order, &sizes, NULL)) return SIS_NO_ROOM;
    lay_out(&run, &order, &sizes, step->workspace);
    for (int i = 0; i < 2; i++) run.n_groups[i] = cut(run.groups[i], run.n_rows[i], run.kernels->max_rows);
    size_t width = program->registers[0].cols;
    for (uint32_t r = 0; step->hidden && r < step->n; r++)
        memcpy(run.registers[0] + r * run.strides[0], step->hidden + r * width, width * sizeof(float));
    const struct kind kind = {program, step->n};
    team_run(step->n_threads, step->cpus, &kind, run_member, &run);
    for (uint32_t r = 0; step->best && r < step->n_out; r++)
        step->best[r] = sis_best(step->out + (size_t)r * program->n_out_cols, program->n_out_cols);
    return atomic_load(&run.error);
}
