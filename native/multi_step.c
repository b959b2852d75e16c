/* A greedy text for several tokens, without a word to Python in between. */
#include "run.h"

#define MOST_TABLES 8

/* As isfinite, which calls a C library on Windows. */
static int is_finite(float x) { return x - x == 0; }

static int is_end(const struct sis_multi_step *more, uint32_t token)
{
    for (uint32_t i = 0; i < more->n_ends; i++)
        if ((uint32_t)more->ends[i] == token) return 1;
    return 0;
}

int32_t sis_multi_step(const struct sis_program *program, const struct sis_step *step, struct sis_multi_step *more)
{
    struct sis_step now = *step;
    struct sis_table tables[MOST_TABLES];
    struct sis_group groups[MOST_TABLES];
    const uint32_t n_tables = more->n_tables, n = n_tables <= MOST_TABLES ? more->n : 1;
    int32_t token;
    for (uint32_t t = 0; t < n_tables && n > 1; t++) {
        groups[t] = step->tables[t].groups[0];
        tables[t] = (struct sis_table){step->tables[t].slots, &groups[t]};
        now.tables = tables;
    }
    for (more->n_run = 0; more->n_run < n;) {
        const int32_t code = sis_run(program, &now);
        if (code) return more->n_run && code == SIS_NO_ROOM ? 0 : code;
        const struct sis_best found = *now.best;
        more->n_run++;
        if (is_end(more, found.token) || !is_finite(found.highest) || !is_finite(found.lowest)) break;
        token = (int32_t)found.token;
        now.tokens = &token;
        now.positions++;
        now.best++;
        for (uint32_t t = 0; t < n_tables && n > 1; t++) {
            tables[t].slots++;
            groups[t].length++;
        }
    }
    return 0;
}
