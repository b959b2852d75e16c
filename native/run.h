/* What the files that run a program share: one step at work, and the phases that it is made of. */
#ifndef SIS_RUN_H
#define SIS_RUN_H

#include "kernels.h"
#include "team.h"
#include <stdatomic.h>

struct group_of_rows {
    uint32_t first, m;
};

/* Choices [first, first + n) are of one expert; what many rows at once read of them lies at many_at. */
struct expert_rows {
    uint32_t expert, first, n, first_group;
    uint32_t units_before[2]; /* of both products: gate and up, and down */
    uint32_t few_at[2];       /* of each product, where its rows begin among those that tile functions read */
    size_t many_at[2][2];
};

/* Choices [first, first + m), of the expert of that number among those in use. */
struct expert_group {
    uint32_t first, m, expert;
};

/* The choices of a step's rows in the order of experts. Of many rows the first product takes half of the experts in turn:
 * `turns` has the first group and unit of each, and where the last ends. */
struct expert_order {
    uint32_t n_experts, n_groups, n_turns;
    struct {
        uint32_t group, unit;
    } turns[3];
    uint32_t units[2];
    struct expert_rows *experts;
    struct expert_group *groups;
    uint32_t *choices; /* row * n_used + slot */
    uint32_t *counts;
};

enum row_form { ROWS_Q8, ROWS_FLOAT, ROWS_PLAIN, N_ROW_FORMS };

/* Bytes that experts need of a workspace. */
struct experts_room {
    size_t rows[2][N_ROW_FORMS], many[2][2], out, order; /* the first two of each product */
    size_t choices, n_expert;                            /* the most of any op: numbers, no bytes */
    size_t many_scratch, raw_scratch, gathered, gates;   /* of each thread */
};

struct run {
    const struct sis_program *program;
    const struct sis_step *step;
    const struct kernels *kernels;
    float *registers[SIS_OUT];
    size_t strides[SIS_OUT];
    uint8_t *places[SIS_PLACES][2];     /* of prepared rows, in SIS_Q8 and SIS_FLOAT */
    uint32_t n_rows[2];                 /* of the step, of its output; so the next three */
    const struct many_rows *many[2][2]; /* in SIS_Q8, in SIS_FLOAT; NULL: too few rows */
    struct group_of_rows *groups[2];
    uint32_t n_groups[2];
    /* For each thread: what `many` wants, or rows that pass; from raw_at on raw weights as tiles, and a tile's decoded rows;
     * from values_at on what a unit passes to an activation. Or what attention of many rows wants. */
    uint8_t *scratch;
    size_t scratch_bytes, raw_at, values_at;
    uint8_t *prepared[SIS_PREPARED]; /* what foreign linears prepare */
    struct expert_order *order;
    /* Rows as each product of experts reads them, and what the second makes of them, in the order of choices. */
    uint8_t *expert_x[2][N_ROW_FORMS], *expert_many[2][2];
    float *expert_out;
    float *parts; /* what the spans of attention leave until they are joined */
    atomic_int error;
};

/* Tiles whose results are written at once: a line for each row between one tile and the next would throw the processor off
 * the stream of weights. On a Sapphire Rapids eight rows of Q8_0 come an eighth faster so. */
#define WRITTEN 16

#define RAW_BYTES (4 << 20) /* of tiles: see raw_units; an eighth of it costs a prompt 8 % */
#define RAW_UNITS 64

/* The form of activations that a weight is multiplied with. */
static inline uint32_t form_of(const struct sis_weight *w)
{
    return w->format <= SIS_BF16 || w->format == SIS_DECODED ? SIS_FLOAT : SIS_Q8;
}

/* Of how many units a member makes tiles of raw rows before it multiplies them, of each of the linears that are multiplied
 * together. Where one unit takes all of the many rows, tiles serve once: of those of a job. Otherwise of more, since the next
 * rows have to come into the second-level cache each time. */
static inline uint32_t raw_units(const struct sis_weight *w, const struct many_rows *many, uint32_t rows,
                                 uint32_t together)
{
    const size_t bytes = sis_one_tile_bytes(w->format, w->n_cols) << LOG_TILES;
    const size_t all = ((w->n_rows + TILE - 1) / TILE + (1u << LOG_TILES) - 1) >> LOG_TILES;
    const size_t fit =
        rows <= many->unit_rows(rows, w->n_cols, form_of(w)) ? many->units : RAW_BYTES / together / (bytes + 1);
    const size_t most = all < RAW_UNITS ? all : RAW_UNITS;
    return (uint32_t)(fit < 1 ? 1 : fit < most ? fit : most);
}

/* The rows of which n tiles from tile t on are made, as far as there are any. */
static inline struct span raw_rows(const struct sis_weight *w, size_t t, size_t n)
{
    const size_t first = t * TILE, most = n * TILE;
    const size_t rows = first >= w->n_rows ? 0 : w->n_rows - first < most ? w->n_rows - first : most;
    return (struct span){w->raw + first * w->row_bytes, rows * w->row_bytes};
}

static inline const struct many_rows *many_in(const struct run *run, int gathered, uint32_t form)
{
    return run->many[gathered][form == SIS_FLOAT];
}

static inline int is_row_op(const struct sis_op *op)
{
    return op->kind != SIS_OP_LINEAR && op->kind != SIS_OP_ATTEND && op->kind != SIS_OP_EXPERTS;
}

static inline int is_invariant(const struct sis_step *step) { return (step->flags & SIS_INVARIANT) != 0; }

static inline size_t up(size_t bytes) { return (bytes + 63) / 64 * 64; }

static inline void raise_to(size_t *most, size_t value)
{
    if (value > *most) *most = value;
}

static inline float *at(const struct run *run, uint32_t reg, uint32_t row, uint32_t column)
{
    if (reg == SIS_OUT) return run->step->out + (size_t)row * run->program->n_out_cols + column;
    return run->registers[reg] + (size_t)row * run->strides[reg] + column;
}

static inline size_t stride_of(const struct run *run, uint32_t reg)
{
    return reg == SIS_OUT ? run->program->n_out_cols : run->strides[reg];
}

/* Row number `first`, the first of a group, of rows of k values that are prepared for tile functions. */
static inline void *prepared_at(const struct run *run, uint32_t place, uint32_t form, uint32_t first, size_t k)
{
    uint8_t *rows = run->places[place][form == SIS_FLOAT];
    if (form == SIS_Q8) return rows + first * (k / BLOCK) * sizeof(struct q8_block);
    return rows + first * sis_float_row(run->kernels, k) * sizeof(float);
}

/* Row operations [first, last) of the program, on the step's rows or, when gathered, on its output rows. */
struct row_ops {
    const struct run *run;
    uint32_t first, last;
    int gathered;
    uint32_t member;
};

/* workspace.c: a step that is to be run; and where everything of it lies in its workspace, if that is large enough for it:
 * the bytes that it takes. */
struct run run_of(const struct sis_program *program, const struct sis_step *step);
size_t lay_out(struct run *run);
uint32_t end_of_phase(const struct sis_program *program, uint32_t first); /* that begins with op `first`; phases.c */
void do_rows(const struct row_ops *ops, uint32_t unit);                   /* rows.c */
struct sis_best sis_best(const float *row, uint32_t n);                   /* best.c; at least one value */
/* The weights that a member reads first in a phase of linears. */
struct span linear_ahead(const struct run *run, const struct team *team, uint32_t first, uint32_t last, int gathered,
                         uint32_t member);
void linear_phase(struct run *run, struct team *team, uint32_t first, uint32_t last, int gathered, uint32_t member);
/* All rows times n tiles, from tile t on; which tiles and which rows of these is for the caller to say. */
struct many job_of(const struct run *run, const struct sis_op *op, size_t t, size_t n, uint32_t member);
/* passing.c: whether linears [first, last) and what they pass to can be a phase, with two ops more. */
int can_pass(const struct run *run, uint32_t first, uint32_t last, int gathered);
void passing_phase(const struct run *run, struct team *team, uint32_t first, uint32_t last, int gathered,
                   uint32_t member);
/* Bytes of what a unit passes on, where many of so many rows are multiplied at once. */
size_t passing_bytes(const struct many_rows *many, uint32_t rows);
/* route.c */
void route_row(const struct run *run, const struct sis_op *op, uint32_t row);
void combine_row(const struct run *run, const struct sis_op *op, uint32_t row); /* what experts_phase has left */
void combine_columns(const struct run *run, const struct sis_op *op, uint32_t row, size_t first);
void gate_row(const struct run *run, const struct sis_op *op, uint32_t row);
/* experts_room.c: raises each size to what an op of n rows needs. */
void experts_room(const struct sis_op *op, uint32_t n, int invariant, struct experts_room *room);
/* Columns of the results of n rows that are there at a time. */
size_t experts_columns(const struct sis_experts *e, uint32_t n);
struct expert_order experts_order(const struct experts_room *room, uint8_t *place);
/* experts.c: what comes between routing and the phase, done by one thread; where rows are a single group, before the phase. */
void experts_begin(const struct run *run, const struct sis_op *op);
void experts_phase(const struct run *run, struct team *team, const struct sis_op *op, uint32_t member);
/* Bytes of the parts of an op of attention, and of scratch for a thread. */
size_t sis_attend_bytes(const struct sis_step *step, const struct sis_op *op);
size_t sis_attend_scratch(const struct sis_step *step, const struct sis_op *op);
void attend_phase(struct run *run, struct team *team, const struct sis_op *op, uint32_t member);

#endif
