/* Tiles in plain C, after the operation sections of Intel's manual (Software Developer's Manual, volume 2: LDTILECFG,
 * TILELOADD, TILESTORED, TILEZERO, TDPBF16PS, TDPBSSD). What would be an illegal instruction or a general protection fault ends
 * the process: so a thread that forgets to shape its tiles is found. */
#ifndef SIS_TILES_EMULATED_H
#define SIS_TILES_EMULATED_H

#include <float.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EMULATED __attribute__((unused, noinline)) static /* inlined, the units of amx would take minutes to compile */

struct emulated_tile {
    uint32_t rows, row_bytes; /* 0: not there */
    uint8_t data[16][64];
};

static _Thread_local struct emulated_tile emulated[8];

static void fault_unless(int condition, const char *what)
{
    if (condition) return;
    fprintf(stderr, "emulated tiles: %s\n", what);
    abort();
}

EMULATED void tile_release(void) { memset(emulated, 0, sizeof emulated); }

EMULATED void tile_shape(const struct tile_shapes *shapes)
{
    tile_release();
    fault_unless(shapes->palette == 1 && !shapes->start_row, "a palette other than 1");
    for (int i = 0; i < 16; i++) {
        int there = shapes->rows[i] && shapes->row_bytes[i];
        fault_unless(there || (!shapes->rows[i] && !shapes->row_bytes[i]), "half a shape");
        if (!there) continue;
        fault_unless(i < 8 && shapes->rows[i] <= 16 && shapes->row_bytes[i] <= 64, "a tile that is too large");
        emulated[i].rows = shapes->rows[i];
        emulated[i].row_bytes = shapes->row_bytes[i];
    }
}

static struct emulated_tile *shaped(int number)
{
    fault_unless(emulated[number].rows != 0, "a tile without a shape");
    return &emulated[number];
}

EMULATED void tile_zero(int number) { memset(shaped(number)->data, 0, sizeof emulated->data); }

EMULATED void tile_load(int number, const void *from, size_t stride)
{
    struct emulated_tile *t = shaped(number);
    memset(t->data, 0, sizeof t->data);
    for (uint32_t r = 0; r < t->rows; r++) memcpy(t->data[r], (const uint8_t *)from + r * stride, t->row_bytes);
}

EMULATED void tile_store(int number, void *to, size_t stride)
{
    const struct emulated_tile *t = shaped(number);
    for (uint32_t r = 0; r < t->rows; r++) memcpy((uint8_t *)to + r * stride, t->data[r], t->row_bytes);
}

/* Denormals as zeros of their sign. */
static inline float flushed(float x) { return __builtin_fabsf(x) < FLT_MIN ? __builtin_copysignf(0, x) : x; }

static inline float from_bfloat(uint16_t b)
{
    uint32_t bits = (uint32_t)b << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return flushed(f);
}

/* How many of the numbers that fill four bytes of a row go into an element, once shapes were found to fit. */
static uint32_t fours_of(int sum, int a, int b)
{
    const struct emulated_tile *c = shaped(sum), *x = shaped(a), *y = shaped(b);
    fault_unless(sum != a && sum != b && a != b, "a tile that is used twice");
    fault_unless(x->rows == c->rows && y->row_bytes == c->row_bytes && y->rows == x->row_bytes / 4,
                 "shapes that do not fit");
    return x->row_bytes / 4;
}

EMULATED void tile_multiply_bytes(int sum, int a, int b)
{
    const uint32_t fours = fours_of(sum, a, b);
    struct emulated_tile *c = shaped(sum);
    const struct emulated_tile *x = shaped(a), *y = shaped(b);
    for (uint32_t m = 0; m < c->rows; m++)
        for (uint32_t n = 0; n < c->row_bytes / 4; n++) {
            int32_t total;
            memcpy(&total, c->data[m] + n * 4, 4);
            for (uint32_t k = 0; k < fours * 4; k++)
                total += (int8_t)x->data[m][k] * (int8_t)y->data[k / 4][n * 4 + k % 4];
            memcpy(c->data[m] + n * 4, &total, 4);
        }
}

/* Each element sums its even and its odd products apart, each by one fused multiplication and addition after the other,
 * then both, and adds that to what the tile held; every result is rounded to nearest even and flushed. */
EMULATED void tile_multiply(int sum, int a, int b)
{
    const uint32_t pairs = fours_of(sum, a, b);
    struct emulated_tile *c = shaped(sum);
    const struct emulated_tile *x = shaped(a), *y = shaped(b);
    const uint32_t columns = c->row_bytes / 4;
    float right[2][16][16];
    for (uint32_t k = 0; k < pairs; k++)
        for (uint32_t n = 0; n < 16; n++) {
            uint16_t pair[2];
            memcpy(pair, y->data[k] + n * 4, 4);
            right[0][k][n] = from_bfloat(pair[0]);
            right[1][k][n] = from_bfloat(pair[1]);
        }
    for (uint32_t m = 0; m < c->rows; m++) {
        float parts[2][16] = {{0}}, total[16];
        for (uint32_t k = 0; k < pairs; k++) {
            uint16_t pair[2];
            memcpy(pair, x->data[m] + k * 4, 4);
            for (int odd = 0; odd < 2; odd++) {
                const float left = from_bfloat(pair[odd]);
                for (uint32_t n = 0; n < 16; n++)
                    parts[odd][n] = flushed(__builtin_fmaf(left, right[odd][k][n], parts[odd][n]));
            }
        }
        memcpy(total, c->data[m], sizeof total);
        for (uint32_t n = 0; n < columns; n++)
            total[n] = flushed(flushed(total[n]) + flushed(parts[0][n] + parts[1][n]));
        memcpy(c->data[m], total, columns * 4);
    }
}

#endif
