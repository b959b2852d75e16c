/* What a format of somebody else's compiles against: copy this file into the plugin. Version SIS_ABI stays.
 *
 * Three rungs by which a weight format becomes fast:
 *   1. nothing native: Python decodes the weight once, at load, to half precision;
 *   2. one C function, sis_decode_fn, in plain C types: the weight stays packed and is decoded while it is used;
 *   3. an object, struct sis_linear, with arithmetic of its own.
 *
 * Structures have natural alignment and only types of fixed size. Whoever passes an address keeps what lies there alive. */
#ifndef SIS_ABI_H
#define SIS_ABI_H

#include <stddef.h>
#include <stdint.h>

#define SIS_ABI 4

/* Rung 2. Decodes n_rows rows, row_bytes apart, to n_rows * n_cols floats. Thread-safe. */
typedef void (*sis_decode_fn)(const uint8_t *rows, size_t row_bytes, size_t n_rows, size_t n_cols, float *out);

/* Rows of activations: row r begins at values + r * stride. */
struct sis_rows {
    float *values;
    uint64_t n;
    uint64_t n_cols;
    uint64_t stride;
};

/* Rung 3: a weight (n_out, n_in) that knows how to multiply. Every function is called from several threads at once.
 *
 * `run` computes part `part` of `parts` of y = x @ weight.T. How many parts there are depends on the shape alone, never
 * on the number of threads; parts write disjoint places of y, and all of it together. A row of y depends on its row of x
 * alone, to the bit: not on the other rows, nor on how many there are. Returns 0; it may fail (anything else) only in
 * ways that the same arguments would always fail.
 *
 * Optional, both or none (NULL): work on the activations that all parts share, done before them. `prepared_bytes` says how
 * many bytes n_rows rows take, more rows no fewer; `prepare` writes rows [first, first + n) of x into `out`, which begins
 * on a border of 64 bytes and is the same for all rows, while others write other rows: x is cut anywhere. `run` then
 * finds in `prepared` what was written, else NULL. Linears that read the same rows and have the same `prepare` and the
 * same `form` share what one of them has written. */
struct sis_linear {
    uint32_t abi; /* SIS_ABI */
    uint32_t parts;
    void *self;
    int32_t (*run)(void *self, const struct sis_rows *x, const void *prepared, struct sis_rows *y, uint32_t part,
                   uint32_t parts);
    uint64_t (*prepared_bytes)(void *self, uint64_t n_rows);
    void (*prepare)(void *self, const struct sis_rows *x, uint64_t first, uint64_t n, void *out);
    uint64_t form; /* whatever else tells prepared rows apart, such as a block's size */
};

#endif
