/* Runs a program: phases of row operations, of linears, and of attention, with a barrier after each. How a phase is
 * cut into units depends on shapes alone; which thread gets a unit changes nothing. */
#include "run.h"
#include <string.h>

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

/* Weights stay where they are from the laying out on: sis_replace waits for its turn too. */
static int32_t run_in_turn(struct run *run)
{
    const struct sis_program *program = run->program;
    const struct sis_step *step = run->step;
    if (step->workspace_bytes < lay_out(run)) return SIS_NO_ROOM;
    for (int i = 0; i < 2; i++) run->n_groups[i] = cut(run->groups[i], run->n_rows[i], run->kernels->max_rows);
    size_t width = program->registers[0].cols;
    for (uint32_t r = 0; step->hidden && r < step->n; r++)
        memcpy(run->registers[0] + r * run->strides[0], step->hidden + r * width, width * sizeof(float));
    const struct kind kind = {program, step->n};
    team_run_in_turn(step->n_threads, step->cpus, &kind, run_member, run);
    return atomic_load(&run->error);
}

int32_t sis_run(const struct sis_program *program, const struct sis_step *step)
{
    struct run run = run_of(program, step);
    struct expert_order order = {0};
    run.order = &order;
    team_take_turn();
    const int32_t code = run_in_turn(&run);
    team_give_turn();
    for (uint32_t r = 0; code != SIS_NO_ROOM && step->best && r < step->n_out; r++)
        step->best[r] = sis_best(step->out + (size_t)r * program->n_out_cols, program->n_out_cols);
    return code;
}
