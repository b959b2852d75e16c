/* Packing weights, putting them in their places, and reading memory, in the same pool. */
#include "kernels.h"
#include "team.h"
#include <stdatomic.h>

struct pack_job {
    const struct sis_weight *weight;
    uint8_t *tiles;
};

static void pack_member(void *context, struct team *team, uint32_t member)
{
    const struct pack_job *job = context;
    size_t bytes = sis_one_tile_bytes(job->weight->format, job->weight->n_cols);
    uint32_t n_tiles = (uint32_t)((job->weight->n_rows + TILE - 1) / TILE);
    for (uint32_t t; (t = team_claim(team, member, n_tiles)) < n_tiles;)
        sis_pack_tile(job->weight, t, job->tiles + t * bytes, NULL);
}

void sis_pack(const struct sis_weight *weight, uint8_t *tiles, uint32_t n_threads)
{
    struct pack_job job = {weight, tiles};
    team_run(n_threads, NULL, NULL, pack_member, &job);
}

struct unpacked_job {
    uint32_t format;
    const struct sis_unpacked *rows;
    uint8_t *tiles;
};

static void pack_unpacked_member(void *context, struct team *team, uint32_t member)
{
    const struct unpacked_job *job = context;
    const size_t bytes = sis_one_tile_bytes(job->format, job->rows->n_cols);
    const uint32_t n_tiles = (uint32_t)((job->rows->n_rows + TILE - 1) / TILE);
    for (uint32_t t; (t = team_claim(team, member, n_tiles)) < n_tiles;)
        sis_pack_unpacked_tile(job->format, job->rows, t, job->tiles + t * bytes);
}

void sis_pack_unpacked(uint32_t format, const struct sis_unpacked *rows, uint8_t *tiles, uint32_t n_threads)
{
    struct unpacked_job job = {format, rows, tiles};
    team_run(n_threads, NULL, NULL, pack_unpacked_member, &job);
}

struct replacement {
    struct sis_weight *weight;
    const struct sis_weight *by;
};

static void replace_member(void *context, struct team *team, uint32_t member)
{
    (void)team, (void)member;
    const struct replacement *r = context;
    *r->weight = *r->by;
}

void sis_replace(struct sis_weight *weight, const struct sis_weight *by)
{
    struct replacement r = {weight, by};
    team_run(1, NULL, NULL, replace_member, &r); /* one run at a time */
}

struct read_job {
    const uint8_t *data;
    uint64_t bytes;
    atomic_ullong sum;
};

static void read_member(void *context, struct team *team, uint32_t member)
{
    struct read_job *job = context;
    const uint64_t piece = 1 << 18;
    const uint32_t pieces = (uint32_t)((job->bytes + piece - 1) / piece);
    for (uint32_t p; (p = team_claim(team, member, pieces)) < pieces;) {
        uint64_t i = p * piece, n = job->bytes - i < piece ? job->bytes - i : piece;
        atomic_fetch_xor(&job->sum, sis_kernels()->sum(job->data + i, n));
    }
}

uint64_t sis_read(const uint8_t *data, uint64_t bytes, uint32_t n_threads)
{
    struct read_job job = {.data = data, .bytes = bytes};
    uint64_t start = team_now();
    team_run(n_threads, NULL, NULL, read_member, &job);
    uint64_t time = team_now() - start;
    return time + (atomic_load(&job.sum) == 1); /* so that the reading cannot be left out */
}
