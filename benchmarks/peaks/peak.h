/* How many multiply-adds a second a unit does on all threads, its operands random and in registers all the time.
 *
 * A unit defines `absent` (why this machine cannot run it, or a null pointer), `spin`, and MACS, the multiply-adds of
 * one round of `spin`; this header brings `main`. Random operands, because a core that multiplies zeros clocks higher.
 * Output: the figure, or the reason why there is none and exit code 3. */
#ifndef PEAK_H
#define PEAK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *absent(void);
static void spin(long rounds, const void *operands); /* 8 KiB of random bytes; as bfloat16, numbers around one */

static union {
    uint64_t words[1024];
    uint16_t halves[4096];
} random_bytes, random_numbers;
static const void *operands;
static atomic_int waiting, go;
static long n_rounds;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *thread(void *unused)
{
    atomic_fetch_add(&waiting, 1);
    while (!atomic_load(&go)) {
    }
    spin(n_rounds, operands);
    return unused;
}

/* Seconds until the last of the threads is done. */
static double timed(int n_threads, long rounds)
{
    pthread_t threads[64];
    n_rounds = rounds;
    atomic_store(&waiting, 0);
    atomic_store(&go, 0);
    for (int i = 1; i < n_threads; i++)
        if (pthread_create(&threads[i], 0, thread, 0)) exit(1);
    while (atomic_load(&waiting) < n_threads - 1) {
    }
    double start = now();
    atomic_store(&go, 1);
    spin(rounds, operands);
    for (int i = 1; i < n_threads; i++) pthread_join(threads[i], 0);
    return now() - start;
}

static int measure(int argc, char **argv, double macs, int numbers)
{
    const char *reason = absent();
    if (reason) {
        puts(reason);
        return 3;
    }
    int n_threads = argc > 1 ? atoi(argv[1]) : 1;
    if (n_threads < 1 || n_threads > 64) return 2;
    uint64_t state = 0x9e3779b97f4a7c15u;
    for (int i = 0; i < 1024; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        random_bytes.words[i] = state;
    }
    for (int i = 0; i < 4096; i++) /* sign and mantissa at random, exponent of one half to one */
        random_numbers.halves[i] = (uint16_t)((random_bytes.halves[i] & 0x807f) | 0x3f00);
    operands = numbers ? random_numbers.words : random_bytes.words;
    long rounds = 1000;
    while (timed(1, rounds) < 0.02) rounds *= 2;
    double best = 1e9;
    for (int i = 0; i < 9; i++) {
        double t = timed(n_threads, 4 * rounds);
        if (t < best) best = t;
    }
    printf("%.6g\n", macs * 4.0 * (double)rounds * n_threads / best);
    return 0;
}

/* Sums that do not wait for each other, c0 and on: as many as hide how long a product takes. */
#define SIX(a, b)                                                                                                      \
    DOT(c0, a, b);                                                                                                     \
    DOT(c1, a, b);                                                                                                     \
    DOT(c2, a, b);                                                                                                     \
    DOT(c3, a, b);                                                                                                     \
    DOT(c4, a, b);                                                                                                     \
    DOT(c5, a, b)
#define TWELVE(a, b)                                                                                                   \
    SIX(a, b);                                                                                                         \
    DOT(c6, a, b);                                                                                                     \
    DOT(c7, a, b);                                                                                                     \
    DOT(c8, a, b);                                                                                                     \
    DOT(c9, a, b);                                                                                                     \
    DOT(c10, a, b);                                                                                                    \
    DOT(c11, a, b)

#define PEAK_MAIN(macs, numbers)                                                                                       \
    int main(int argc, char **argv) { return measure(argc, argv, macs, numbers); }

#endif
