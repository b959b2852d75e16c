/* The same multiplication by llama.cpp's own backend, in the buffer that it would choose, `times` times over on one thread.
 * What a weight costs is the difference between two heights of the matrix, so that the rounding of activations drops out.
 *
 *   ggml_linear type rows n_rows n_cols times
 *
 * Linked statically with ggml and its CPU backend, compiled for the instructions in question with -O3, GGML_USE_CPU,
 * GGML_USE_CPU_REPACK and GGML_USE_LLAMAFILE, as llama.cpp's own build does. */
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MOST = 16 };

static enum ggml_type type_of(const char *name)
{
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        const char *known = ggml_type_name((enum ggml_type)i);
        if (known && !strcasecmp(known, name)) return (enum ggml_type)i;
    }
    fprintf(stderr, "no type %s\n", name);
    exit(2);
}

/* The first of the backend's own kinds of buffer that can multiply these, else the usual one. */
static ggml_backend_buffer_type_t buffer_for(ggml_backend_dev_t device, struct ggml_tensor *w, struct ggml_tensor *y)
{
    ggml_backend_dev_get_extra_bufts_t extra = (ggml_backend_dev_get_extra_bufts_t)ggml_backend_reg_get_proc_address(
        ggml_backend_dev_backend_reg(device), "ggml_backend_dev_get_extra_bufts");
    for (ggml_backend_buffer_type_t *kind = extra ? extra(device) : NULL; kind && *kind; kind++) {
        w->buffer = ggml_backend_buft_alloc_buffer(*kind, 0);
        const int fits = ggml_backend_dev_supports_op(device, y);
        ggml_backend_buffer_free(w->buffer);
        w->buffer = NULL;
        if (fits) return *kind;
    }
    return ggml_backend_cpu_buffer_type();
}

int main(int argc, char **argv)
{
    if (argc != 6) return 1;
    const enum ggml_type type = type_of(argv[1]);
    const int64_t rows = atoi(argv[2]), n = atoi(argv[3]), k = atoi(argv[4]);
    const int times = atoi(argv[5]) < MOST ? atoi(argv[5]) : MOST;
    ggml_backend_t backend = ggml_backend_cpu_init();
    ggml_backend_cpu_set_n_threads(backend, 1);

    const struct ggml_init_params params = {ggml_tensor_overhead() * (MOST + 2) + ggml_graph_overhead(), NULL, true};
    struct ggml_context *weights = ggml_init(params), *others = ggml_init(params);
    struct ggml_tensor *w = ggml_new_tensor_2d(weights, type, k, n);
    struct ggml_tensor *x = ggml_new_tensor_2d(others, GGML_TYPE_F32, k, rows);
    struct ggml_tensor *y = ggml_mul_mat(others, w, x);
    struct ggml_cgraph *graph = ggml_new_graph(others);
    ggml_build_forward_expand(graph, y);
    for (int t = 1; t < times; t++) ggml_build_forward_expand(graph, ggml_mul_mat(others, w, x));
    ggml_backend_buffer_type_t kind = buffer_for(ggml_backend_get_device(backend), w, y);
    ggml_backend_alloc_ctx_tensors_from_buft(weights, kind);
    ggml_backend_alloc_ctx_tensors(others, backend);

    float *values = malloc((size_t)(n * k) * sizeof *values), *numbers = malloc((size_t)(rows * k) * sizeof *numbers);
    uint32_t random = 1;
    for (int64_t i = 0; i < n * k; i++) values[i] = (float)((random = random * 1664525 + 1013904223) >> 24) / 64 - 2;
    for (int64_t i = 0; i < rows * k; i++) numbers[i] = (float)(i % 13) - 6;
    void *raw = malloc(ggml_nbytes(w));
    ggml_quantize_chunk(type, values, raw, 0, n, k, NULL);
    ggml_backend_tensor_set(w, raw, 0, ggml_nbytes(w));
    ggml_backend_tensor_set(x, numbers, 0, ggml_nbytes(x));
    if (ggml_backend_graph_compute(backend, graph) != GGML_STATUS_SUCCESS) return 3;
    puts(ggml_backend_buft_name(kind));
    return 0;
}
