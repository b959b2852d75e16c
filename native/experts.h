/* What the files of experts share: how their weights read rows, and how they pass work on. */
#ifndef SIS_EXPERTS_H
#define SIS_EXPERTS_H

#include "run.h"

/* The two products of an expert: gate and up, and down. */
enum stage { IN, HIDDEN };

/* How tile functions, or `dot` for a decoded weight, read rows. */
static inline enum row_form row_form(const struct sis_weight *w)
{
    if (w->format == SIS_DECODED) return ROWS_PLAIN;
    return w->format <= SIS_BF16 ? ROWS_FLOAT : ROWS_Q8;
}

static inline size_t width_of(const struct sis_experts *e, enum stage stage)
{
    return stage == IN ? e->up->n_cols : e->n_ff;
}

/* The forms of activations that the weights of a stage read where rows are few; a decoded weight reads rows as they are. */
static inline uint32_t forms_of(const struct sis_experts *e, enum stage stage)
{
    if (stage == HIDDEN) return 1u << row_form(e->down);
    return 1u << row_form(e->up) | (e->gate ? 1u << row_form(e->gate) : 0);
}

/* Those that they read where many rows are multiplied at once. */
static inline uint32_t many_forms_of(const struct sis_experts *e, enum stage stage)
{
    if (stage == HIDDEN) return form_of(e->down);
    return form_of(e->up) | (e->gate ? form_of(e->gate) : 0);
}

/* What multiplies an expert's rows in a form at once, or NULL. */
static inline const struct many_rows *many_of(const struct run *run, const struct expert_rows *rows, uint32_t form)
{
    return sis_many_for(run->kernels, rows->n, form, is_invariant(run->step));
}

/* Whether that is so with every weight of a stage. */
static inline int is_many(const struct run *run, const struct sis_experts *e, enum stage stage,
                          const struct expert_rows *rows)
{
    for (uint32_t form = SIS_Q8; form <= SIS_FLOAT; form *= 2)
        if (many_forms_of(e, stage) & form && !many_of(run, rows, form)) return 0;
    return 1;
}

/* Where a group's rows lie among those that tile functions read. */
static inline size_t few_at(const struct expert_rows *rows, const struct expert_group *g, enum stage stage)
{
    return rows->few_at[stage] + (g->first - rows->first);
}

/* Some tiles of one expert's weight times some of its rows. */
struct product {
    const struct sis_weight *w;
    const struct expert_rows *rows;
    enum stage stage;
    int many;
    const float *bias;    /* of the first tile */
    size_t tile, n_tiles; /* of the whole weight */
    uint32_t first, n;    /* rows among the expert's */
    float *y;             /* where the first tile's values of the expert's first row go */
    size_t stride;
    struct span ahead; /* what is read after it, where that is known */
};

/* experts_room.c: choices of n rows after which the second turn begins, with the next expert. */
size_t experts_turn(const struct sis_experts *e, uint32_t n);
/* experts_order.c: finds the order of choices by expert, then by row, and the units of it. */
void experts_arrange(const struct run *run, const struct sis_op *op);
/* A unit is some tiles times some rows of an expert: the logarithm of how many tiles, */
uint32_t experts_log_tiles(const struct run *run);
/* how many units n_out columns are, */
uint32_t experts_units_across(const struct run *run, size_t n_out);
/* and its rows: all of an expert's, or as many as are multiplied at once in every form. */
uint32_t experts_unit_rows(const struct run *run, const struct sis_experts *e, enum stage stage,
                           const struct expert_rows *rows);
/* experts_rows.c: prepares a group's rows for the weights of a stage. */
void experts_prepare(const struct run *run, const struct sis_op *op, enum stage stage, uint32_t group, uint32_t member);
/* A prepared group's rows, as a weight of a stage reads them where they are few. */
const void *experts_prepared(const struct run *run, const struct sis_weight *w, enum stage stage,
                             const struct expert_group *g);
/* experts_product.c */
void experts_multiply(const struct run *run, const struct product *p, uint32_t member);

#endif
