/* One step of a program that multiplies `rows` rows of activations with a matrix `times` times over, on one thread; or,
 * with rows 0, decodes the matrix. What a multiplication costs is the difference between two runs.
 *
 *   one_linear format rows n_rows n_cols times */
#include <kinds.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 16 };

static void *take(size_t bytes)
{
    void *p = aligned_alloc(64, (bytes + 64) / 64 * 64);
    if (!p) exit(2);
    memset(p, 0, bytes);
    return p;
}

/* 0 for tiles that no type of GGUF's has. */
static size_t row_bytes(uint32_t format, size_t n)
{
    static const struct {
        size_t values, bytes;
    } blocks[SIS_DECODED] = {{1, 4},
                             {1, 2},
                             {1, 2},
#define BLOCK_OF(NAME, FORMAT, COLUMNS, BYTES) [FORMAT] = {COLUMNS, BYTES},
                             SIS_PACKED(BLOCK_OF)};
    return blocks[format].values ? n / blocks[format].values * blocks[format].bytes : 0;
}

static void fill(uint8_t *bytes, size_t n) /* no NaN in any type */
{
    for (size_t i = 0; i < n; i++) bytes[i] = (uint8_t)(i * 2654435761u >> 24 & 0x3b);
}

int main(int argc, char **argv)
{
    if (argc != 6) return 1;
    const uint32_t format = (uint32_t)atoi(argv[1]), rows = (uint32_t)atoi(argv[2]), times = (uint32_t)atoi(argv[5]);
    const size_t n_rows = (size_t)atoi(argv[3]), n_cols = (size_t)atoi(argv[4]), bytes = row_bytes(format, n_cols);
    uint8_t *raw = take(n_rows * bytes);
    fill(raw, n_rows * bytes);
    struct sis_weight weight = {.format = format, .n_rows = n_rows, .n_cols = n_cols, .raw = raw, .row_bytes = bytes};
    uint8_t *tiles = take(sis_tile_bytes(format, n_rows, n_cols));
    if (bytes) sis_pack(&weight, tiles, 1);
    else fill(tiles, sis_tile_bytes(format, n_rows, n_cols));
    if (rows || !bytes) weight.raw = NULL, weight.tiles = tiles;
    if (!rows) {
        float *out = take(n_cols * 4);
        for (uint32_t t = 0; t < times; t++)
            for (int32_t r = 0; r < (int32_t)n_rows; r++) sis_take_row(&weight, r, out);
        return 0;
    }

    struct sis_op ops[1 + MOST] = {
        {.kind = SIS_OP_PREPARE, .flags = format <= SIS_BF16 ? SIS_FLOAT : SIS_Q8, .width = (uint32_t)n_cols}};
    for (uint32_t t = 1; t <= times && t <= MOST; t++)
        ops[t] = (struct sis_op){.kind = SIS_OP_LINEAR, .dst = 1, .weight = &weight};
    uint8_t apart[(2 + SIS_N_ROOMS) * (2 + SIS_N_ROOMS)];
    memset(apart, 1, sizeof apart);
    const struct sis_register registers[2] = {{.cols = (uint32_t)n_cols}, {.cols = (uint32_t)n_rows}};
    struct sis_program program = {
        .version = SIS_PROGRAM,
        .n_ops = 1 + times,
        .n_registers = 2,
        .n_out_cols = 1,
        .ops = ops,
        .registers = registers,
        .apart = apart,
    };
    float *hidden = take(rows * n_cols * 4);
    for (size_t i = 0; i < rows * n_cols; i++) hidden[i] = (float)(i % 13) - 6;
    struct sis_step step = {.n = rows, .n_out = rows, .n_threads = 1, .hidden = hidden, .out = take(rows * 4)};
    step.workspace_bytes = sis_workspace(&program, &step);
    step.workspace = take(step.workspace_bytes);
    return sis_run(&program, &step);
}
