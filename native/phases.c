/* Which ops run together: those of a phase, after which all threads wait for each other. */
#include "run.h"

/* Gathering begins a new set of rows, so it begins a phase. */
uint32_t end_of_phase(const struct sis_program *program, uint32_t first)
{
    const struct sis_op *ops = program->ops;
    uint32_t end = first + 1;
    if (is_row_op(&ops[first]))
        while (end < program->n_ops && is_row_op(&ops[end]) && ops[end].kind != SIS_OP_GATHER) end++;
    else if (ops[first].kind == SIS_OP_LINEAR)
        while (end < program->n_ops && ops[end].kind == SIS_OP_LINEAR) end++;
    return end;
}
