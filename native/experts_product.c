/* Tiles of one expert's weight times its rows: by the functions of any linear. */
#include "experts.h"
#include "results.h"

#define DECODED_ROWS 4 /* rows of a decoded weight at a time */

/* acc[tile][m][TILE] is what n columns, from `column` on, have of m of the expert's rows. */
static void write_columns(const struct product *p, uint32_t first, uint32_t m, size_t column, size_t n,
                          const float *acc)
{
    sis_write_results(p->y + first * p->stride + column, p->stride, m, n, acc, (size_t)m * TILE,
                      p->bias ? p->bias + column : NULL, 0);
}

static void product_of_many(const struct run *run, const struct product *p, uint32_t member)
{
    const struct sis_weight *w = p->w;
    const size_t bytes = sis_one_tile_bytes(w->format, w->n_cols);
    const int floats = form_of(w) == SIS_FLOAT;
    struct many job = {
        .format = w->format,
        .first = p->first,
        .rows = p->n,
        .k = w->n_cols,
        .x = run->expert_many[p->stage][floats] + p->rows->many_at[p->stage][floats],
        .tile_bytes = bytes,
        .n = p->n_tiles * TILE,
        .y = p->y,
        .stride = p->stride,
        .bias = p->bias,
        .scratch = run->scratch + member * run->scratch_bytes,
        .ahead = p->ahead,
    };
    uint8_t *made = job.scratch + run->raw_at;
    job.tiles = sis_tiles_of(w, p->tile, p->n_tiles, made, (float *)(void *)(made + (bytes << LOG_TILES)));
    many_of(run, p->rows, form_of(w))->multiply(&job);
}

static void product_decoded(const struct run *run, const struct product *p, uint32_t member)
{
    const struct sis_weight *w = p->w;
    const size_t first = p->tile * TILE, stop = first + p->n_tiles * TILE;
    float acc[MAX_GROUP * TILE], *rows = (float *)(void *)(run->scratch + member * run->scratch_bytes);
    for (size_t row = first; row < stop; row += DECODED_ROWS) {
        w->decode(w->raw + row * w->row_bytes, w->row_bytes, DECODED_ROWS, w->n_cols, rows);
        const struct expert_group *g = run->order->groups + p->rows->first_group;
        for (uint32_t done = 0; done < p->rows->n; done += g++->m) {
            run->kernels->dot(rows, DECODED_ROWS, experts_prepared(run, w, p->stage, g), w->n_cols, g->m, w->n_cols,
                              acc);
            write_columns(p, done, g->m, row - first, DECODED_ROWS, acc);
        }
    }
}

static void product_packed(const struct run *run, const struct product *p, uint32_t member)
{
    const struct sis_weight *w = p->w;
    float acc[WRITTEN * MAX_GROUP * TILE] __attribute__((aligned(64)));
    uint8_t *scratch = run->scratch + member * run->scratch_bytes;
    const size_t at_a_time = w->raw ? 1 : p->n_tiles; /* raw: a tile is made once, and then used for all rows */
    for (size_t t = 0; t < p->n_tiles; t += at_a_time) {
        const uint8_t *tiles = sis_tiles_of(w, p->tile + t, at_a_time, scratch, NULL);
        const struct expert_group *g = run->order->groups + p->rows->first_group;
        for (uint32_t done = 0; done < p->rows->n; done += g++->m) {
            const void *x = experts_prepared(run, w, p->stage, g);
            sis_multiply_tiles(run->kernels, w->format, tiles, at_a_time, x, g->m, w->n_cols, acc);
            write_columns(p, done, g->m, t * TILE, at_a_time * TILE, acc);
        }
    }
}

void experts_multiply(const struct run *run, const struct product *p, uint32_t member)
{
    if (p->many) product_of_many(run, p, member);
    else if (p->w->format == SIS_DECODED) product_decoded(run, p, member);
    else product_packed(run, p, member);
}
