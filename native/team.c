/* Members spin within a step, where the next phase is microseconds away, and sleep between steps. A futex costs 70 µs a
 * hand-off, which at ten phases a layer would be half of a small model's time; a spinning hand-off costs 0.5 µs. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime, in strict C11 */
#include "team.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#define SPINS_BEFORE_YIELD 4000 /* some 50 µs: then somebody else needs the core */
#define SLEEP_AFTER_NS 1000000
#define LINE 64

struct team {
    uint32_t size;
    struct claims {
        _Alignas(64) atomic_uint next;
    } claims[MAX_THREADS]; /* of each member's share */
    _Alignas(64) atomic_uint arrived;
    _Alignas(64) atomic_uint generation;
    team_fn fn;
    void *context;
};

struct worker {
    _Alignas(64) atomic_uint go;
    atomic_int asleep;
    uint32_t member;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
};

static struct team team;
static struct worker workers[MAX_THREADS];
static uint32_t n_workers;

static pthread_mutex_t turn_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn_changed = PTHREAD_COND_INITIALIZER;
static uint64_t next_ticket, serving;

static inline void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

uint64_t team_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint32_t team_size(const struct team *t) { return t->size; }

uint32_t team_claim_some(struct team *t, uint32_t member, uint32_t n, int many, uint32_t *end)
{
    for (uint32_t i = 0; i < t->size; i++) {
        uint64_t owner = member + i < t->size ? member + i : member + i - t->size;
        uint32_t first = (uint32_t)(n * owner / t->size), share = (uint32_t)(n * (owner + 1) / t->size) - first;
        atomic_uint *next = &t->claims[owner].next;
        uint32_t taken = atomic_load_explicit(next, memory_order_relaxed);
        if (taken >= share) continue;
        uint32_t some = many ? (share - taken + 1) / 2 : 1;
        taken = atomic_fetch_add_explicit(next, some, memory_order_relaxed);
        if (taken >= share) continue;
        *end = first + (taken + some < share ? taken + some : share);
        return first + taken;
    }
    return n;
}

uint32_t team_claim(struct team *t, uint32_t member, uint32_t n)
{
    uint32_t end;
    return team_claim_some(t, member, n, 0, &end);
}

static void forget_claims(struct team *t)
{
    for (uint32_t i = 0; i < t->size; i++) atomic_store_explicit(&t->claims[i].next, 0, memory_order_relaxed);
}

void team_barrier(struct team *t) { team_barrier_then(t, NULL, NULL, (struct span){NULL, 0}); }

void team_barrier_then(struct team *t, void (*alone)(void *), void *context, struct span ahead)
{
    if (t->size == 1) {
        if (alone) alone(context);
        forget_claims(t);
        return;
    }
    unsigned generation = atomic_load_explicit(&t->generation, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&t->arrived, 1, memory_order_acq_rel) + 1 == t->size) {
        if (alone) alone(context);
        atomic_store_explicit(&t->arrived, 0, memory_order_relaxed);
        forget_claims(t);
        atomic_store_explicit(&t->generation, generation + 1, memory_order_release);
        return;
    }
    for (unsigned spins = 0; atomic_load_explicit(&t->generation, memory_order_acquire) == generation; spins++) {
        if (ahead.bytes > LINE) {
            __builtin_prefetch(ahead.data, 0, 2);
            ahead = (struct span){ahead.data + LINE, ahead.bytes - LINE};
        } else
            pause_cpu();
        if (spins > SPINS_BEFORE_YIELD) sched_yield();
    }
}

static void wait_for_work(struct worker *w, unsigned seen)
{
    uint64_t start = team_now();
    for (unsigned spins = 0;; spins++) {
        if (atomic_load_explicit(&w->go, memory_order_acquire) != seen) return;
        pause_cpu();
        if (spins % 1024 == 1023 && team_now() - start > SLEEP_AFTER_NS) break;
        if (spins > SPINS_BEFORE_YIELD && spins % 64 == 0) sched_yield();
    }
    pthread_mutex_lock(&w->mutex);
    atomic_store(&w->asleep, 1);
    while (atomic_load(&w->go) == seen) pthread_cond_wait(&w->wake, &w->mutex);
    atomic_store(&w->asleep, 0);
    pthread_mutex_unlock(&w->mutex);
}

static void *work(void *argument)
{
    struct worker *w = argument;
    for (unsigned seen = 0;;) {
        wait_for_work(w, seen);
        seen++;
        team.fn(team.context, &team, w->member);
        team_barrier(&team);
    }
    return NULL;
}

/* A child of fork has none of the threads, and locks that somebody may hold. */
static void forget_workers(void)
{
    static const pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static const pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
    memset(workers, 0, sizeof workers);
    memset(&team, 0, sizeof team);
    n_workers = 0;
    next_ticket = serving = 0;
    memcpy(&turn_mutex, &mutex, sizeof mutex);
    memcpy(&turn_changed, &cond, sizeof cond);
}

static void start_workers(uint32_t wanted)
{
    static int watched;
    if (!watched) watched = pthread_atfork(NULL, NULL, forget_workers) == 0;
    while (n_workers + 1 < wanted) {
        struct worker *w = &workers[n_workers];
        pthread_t thread;
        w->member = n_workers + 1;
        pthread_mutex_init(&w->mutex, NULL);
        pthread_cond_init(&w->wake, NULL);
        if (pthread_create(&thread, NULL, work, w)) return; /* fewer threads give the same results */
        pthread_detach(thread);
        n_workers++;
    }
}

void team_run(uint32_t n_threads, team_fn fn, void *context)
{
    pthread_mutex_lock(&turn_mutex);
    uint64_t ticket = next_ticket++;
    while (ticket != serving) pthread_cond_wait(&turn_changed, &turn_mutex);
    pthread_mutex_unlock(&turn_mutex);

    if (n_threads > MAX_THREADS) n_threads = MAX_THREADS;
    start_workers(n_threads);
    team.size = n_threads < 1 ? 1 : n_threads <= n_workers + 1 ? n_threads : n_workers + 1;
    team.fn = fn;
    team.context = context;
    forget_claims(&team);
    for (uint32_t i = 0; i + 1 < team.size; i++) {
        struct worker *w = &workers[i];
        atomic_fetch_add(&w->go, 1);
        if (atomic_load(&w->asleep)) {
            pthread_mutex_lock(&w->mutex);
            pthread_cond_signal(&w->wake);
            pthread_mutex_unlock(&w->mutex);
        }
    }
    fn(context, &team, 0);
    team_barrier(&team);

    pthread_mutex_lock(&turn_mutex);
    serving++;
    pthread_cond_broadcast(&turn_changed);
    pthread_mutex_unlock(&turn_mutex);
}
