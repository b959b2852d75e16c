/* What the files that run a program share: one step at work, and the phases that it is made of. */
#ifndef SIS_RUN_H
#define SIS_RUN_H

#include "kernels.h"
#include "team.h"
#include <stdatomic.h>

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
    uint8_t *many_q8, *many_floats;
    uint32_t n_rows[2]; /* of the step, of its output; so the next three */
    const struct many_rows *many[2]; /* NULL: too few rows */
    struct group_of_rows *groups[2];
    uint32_t n_groups[2];
    uint8_t *scratch; /* for each thread: what `many` wants; from raw_at on raw weights as tiles, and a tile's decoded rows */
    size_t scratch_bytes, raw_at;
    uint8_t *prepared[SIS_PREPARED]; /* what foreign linears prepare */
    float *parts; /* what the spans of attention leave until they are joined */
    atomic_int error;
};

#define LOG_TILES 2 /* the most tiles in a unit of a linear, as a power of two */

/* Which of these forms of activations are prepared for multiplying many rows at once. */
static inline uint32_t many_forms(const struct run *run, int gathered, uint32_t forms)
{
    return run->many[gathered] ? run->many[gathered]->forms & forms : 0;
}

static inline size_t up(size_t bytes) { return (bytes + 63) / 64 * 64; }

static inline float *at(const struct run *run, uint32_t reg, uint32_t row, uint32_t column)
{
    if (reg == SIS_OUT) return run->step->out + (size_t)row * run->program->n_out_cols + column;
    return run->registers[reg] + (size_t)row * run->strides[reg] + column;
}

static inline size_t stride_of(const struct run *run, uint32_t reg)
{
    return reg == SIS_OUT ? run->program->n_out_cols : run->strides[reg];
}

/* Row operations [first, last) of the program, on the step's rows or, when gathered, on its output rows. */
struct row_ops {
    const struct run *run;
    uint32_t first, last;
    int gathered;
};

void do_rows(const struct row_ops *ops, uint32_t unit); /* rows.c */
/* The weights that a member reads first in a phase of linears. */
struct span linear_ahead(const struct run *run, const struct team *team, uint32_t first, uint32_t last, int gathered,
                         uint32_t member);
void linear_phase(struct run *run, struct team *team, uint32_t first, uint32_t last, int gathered, uint32_t member);
/* Bytes of the parts of an op of attention. */
size_t sis_attend_bytes(const struct sis_step *step, const struct sis_op *op, uint32_t max_rows);
void attend_phase(struct run *run, struct team *team, const struct sis_op *op, uint32_t member);

#endif
