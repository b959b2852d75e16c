/* Members spin within a step, where the next phase is microseconds away, and sleep between steps. A futex costs 70 µs a
 * hand-off, which at ten phases a layer would be half of a small model's time; a spinning hand-off costs 0.5 µs. Who has
 * spun for long waits for a member whose processor somebody else has, and sleeps: that member may take its processor, and
 * whoever wakes is served before those that were busy meanwhile. Who yields instead gives a slice of some milliseconds
 * away, at the end of which the other member has lost its own: a step took fifty times as long so. */
#define _GNU_SOURCE /* sched_setaffinity, and clock_gettime in strict C11 */
#include "pace.h"
#include "team.h"
#include "thread.h"
#include <stdatomic.h>
#include <string.h>

#define SPINS_BEFORE_SLEEP 8000 /* some 100 µs: then somebody else needs the core */
#define LONG_WAIT 64            /* spins: from then on a wait is counted */
#define SLEEP_AFTER_NS 1000000
#define WATCH_NS 12000000 /* several slices of a system's: who shares its processor loses it within that */
#define GAP_NS 50000      /* between two looks at the clock: somebody else had the processor */
#define LOST_NS 2000000   /* of such gaps, and of waking up */
#define LOG_KINDS 8
#define LINE 64
#define ANYWHERE (-1)

struct team {
    uint32_t size;
    struct claims {
        _Alignas(64) atomic_uint next;
    } claims[MAX_THREADS]; /* of each member's share */
    _Alignas(64) atomic_uint arrived;
    _Alignas(64) atomic_uint generation;
    atomic_uint asleep;                /* members that wait for the next generation so */
    _Alignas(64) atomic_ullong waited; /* nanoseconds of all members in long waits */
    team_fn fn;
    void *context;
    const int32_t *cpus;
};

struct worker {
    _Alignas(64) atomic_uint go;
    atomic_int asleep, watches;
    uint32_t member;
    int32_t cpu;    /* where it was pinned last, or ANYWHERE */
    places allowed; /* where it may run otherwise */
    lock mutex;
    condition wake;
};

static struct team team;
static lock barrier_mutex = LOCK_INITIALIZER;
static condition barrier_passed = CONDITION_INITIALIZER;
static struct worker workers[MAX_THREADS];
static uint32_t n_workers;

/* Members that are not in use see whether their processors are free. */
static struct {
    const struct pace *wanted; /* by whom, or NULL */
    uint64_t since;
    atomic_uint at_it;
    atomic_int lost; /* whether any of them lost its processor, or was called to work */
} watching;

/* By a hash of the kind: those that share a place forget each other. */
static struct {
    const void *work;
    uint32_t log_rows;
    struct pace pace;
} kinds[1 << LOG_KINDS];

static lock turn_mutex = LOCK_INITIALIZER;
static condition turn_changed = CONDITION_INITIALIZER;
static uint64_t next_ticket, serving;

uint64_t team_now(void) { return thread_now(); }

uint32_t team_size(const struct team *t) { return t->size; }

uint32_t team_claim_some(struct team *t, uint32_t member, uint32_t n, uint32_t quarters, uint32_t *end)
{
    for (uint32_t i = 0; i < t->size; i++) {
        uint64_t owner = member + i < t->size ? member + i : member + i - t->size;
        uint32_t first = (uint32_t)(n * owner / t->size), share = (uint32_t)(n * (owner + 1) / t->size) - first;
        atomic_uint *next = &t->claims[owner].next;
        uint32_t taken = atomic_load_explicit(next, memory_order_relaxed);
        if (taken >= share) continue;
        uint32_t some = quarters ? ((share - taken) * quarters + 3) / 4 : 1;
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

/* Whoever counts itself as asleep looks at the generation after that, and whoever raises it counts those after that. */
static void sleep_until_passed(struct team *t, unsigned generation)
{
    lock_take(&barrier_mutex);
    atomic_fetch_add(&t->asleep, 1);
    while (atomic_load(&t->generation) == generation) condition_wait(&barrier_passed, &barrier_mutex);
    atomic_fetch_sub(&t->asleep, 1);
    lock_give(&barrier_mutex);
}

static void let_pass(struct team *t, unsigned generation)
{
    atomic_store(&t->generation, generation);
    if (!atomic_load(&t->asleep)) return;
    lock_take(&barrier_mutex);
    condition_wake_all(&barrier_passed);
    lock_give(&barrier_mutex);
}

void team_barrier(struct team *t) { team_barrier_then(t, NULL, NULL, (struct span){NULL, 0}); }

void team_barrier_then(struct team *t, void (*alone)(void *), void *context, struct span ahead)
{
    const uint32_t size = t->size; /* once the last member is counted, the next run may begin with another */
    if (size == 1) {
        if (alone) alone(context);
        forget_claims(t);
        return;
    }
    unsigned generation = atomic_load_explicit(&t->generation, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&t->arrived, 1, memory_order_acq_rel) + 1 == size) {
        if (alone) alone(context);
        atomic_store_explicit(&t->arrived, 0, memory_order_relaxed);
        forget_claims(t);
        let_pass(t, generation + 1);
        return;
    }
    uint64_t since = 0;
    for (unsigned spins = 0; atomic_load_explicit(&t->generation, memory_order_acquire) == generation; spins++) {
        if (spins == LONG_WAIT) since = team_now();
        if (ahead.bytes > LINE) {
            __builtin_prefetch(ahead.data, 0, 2);
            ahead = (struct span){ahead.data + LINE, ahead.bytes - LINE};
        } else pause_cpu();
        if (spins > SPINS_BEFORE_SLEEP) sleep_until_passed(t, generation);
    }
    if (since) atomic_fetch_add_explicit(&t->waited, team_now() - since, memory_order_relaxed);
}

static void wait_for_work(struct worker *w, unsigned seen, uint64_t spin_ns)
{
    uint64_t start = team_now();
    for (unsigned spins = 0;; spins++) {
        if (atomic_load_explicit(&w->go, memory_order_acquire) != seen) return;
        pause_cpu();
        if (spins % 1024 == 1023 && team_now() - start > spin_ns) break;
    }
    lock_take(&w->mutex);
    atomic_store(&w->asleep, 1);
    while (atomic_load(&w->go) == seen) condition_wait(&w->wake, &w->mutex);
    atomic_store(&w->asleep, 0);
    lock_give(&w->mutex);
}

static void move_to(struct worker *w, int32_t cpu)
{
    if (cpu == w->cpu) return;
    if (cpu == ANYWHERE) thread_place(&w->allowed);
    else thread_pin(cpu);
    w->cpu = cpu;
}

/* Until it is seen that the processor is free, or is not, or until there is work. */
static void watch(struct worker *w, unsigned seen)
{
    uint64_t now = watching.since, before, lost = 0;
    const uint64_t end = now + WATCH_NS;
    int called;
    do {
        pause_cpu();
        before = now;
        now = team_now();
        lost += now - before > GAP_NS ? now - before : 0;
        called = atomic_load_explicit(&w->go, memory_order_relaxed) != seen;
    } while (now < end && lost < LOST_NS && !called);
    if (lost >= LOST_NS || called) atomic_store(&watching.lost, 1);
    atomic_fetch_sub(&watching.at_it, 1);
}

static THREAD_RESULT work(void *argument)
{
    struct worker *w = argument;
    thread_places(&w->allowed);
    uint64_t spin_ns = SLEEP_AFTER_NS;
    for (unsigned seen = 0;;) {
        wait_for_work(w, seen, spin_ns);
        seen++;
        if (atomic_exchange(&w->watches, 0)) {
            watch(w, seen);
            spin_ns = 0; /* it may be somebody's processor */
            continue;
        }
        spin_ns = SLEEP_AFTER_NS;
        move_to(w, team.cpus ? team.cpus[w->member] : ANYWHERE);
        team.fn(team.context, &team, w->member);
        team_barrier(&team);
    }
    return 0;
}

/* A child of fork has none of the threads, and locks that somebody may hold. */
static void forget_workers(void)
{
    memset(workers, 0, sizeof workers);
    memset(&team, 0, sizeof team);
    memset(&watching, 0, sizeof watching);
    n_workers = 0;
    next_ticket = serving = 0;
    turn_mutex = (lock)LOCK_INITIALIZER;
    turn_changed = (condition)CONDITION_INITIALIZER;
    barrier_mutex = (lock)LOCK_INITIALIZER;
    barrier_passed = (condition)CONDITION_INITIALIZER;
}

static void start_workers(uint32_t wanted)
{
    static int watched;
    if (!watched) thread_after_fork(forget_workers);
    watched = 1;
    while (n_workers + 1 < wanted) {
        struct worker *w = &workers[n_workers];
        w->member = n_workers + 1;
        w->cpu = ANYWHERE;
        w->mutex = (lock)LOCK_INITIALIZER;
        w->wake = (condition)CONDITION_INITIALIZER;
        if (!thread_start(work, w)) return; /* fewer threads give the same results */
        n_workers++;
    }
}

static struct pace *pace_of(const struct kind *kind)
{
    uint32_t log_rows = kind->rows ? 32 - (uint32_t)__builtin_clz(kind->rows) : 0;
    uint64_t hash = ((uintptr_t)kind->work / 64 * 33 + log_rows) * 0x9e3779b97f4a7c15u;
    size_t i = hash >> (64 - LOG_KINDS);
    if (kinds[i].work != kind->work || kinds[i].log_rows != log_rows) {
        kinds[i].work = kind->work;
        kinds[i].log_rows = log_rows;
        kinds[i].pace = (struct pace){0};
    }
    return &kinds[i].pace;
}

static void call(struct worker *w)
{
    atomic_fetch_add(&w->go, 1);
    if (!atomic_load(&w->asleep)) return;
    lock_take(&w->mutex);
    condition_wake_all(&w->wake);
    lock_give(&w->mutex);
}

/* In this caller's turn. */
static void run_members(uint32_t n_threads, const int32_t *cpus, team_fn fn, void *context)
{
    team.size = n_threads;
    team.fn = fn;
    team.context = context;
    team.cpus = cpus;
    forget_claims(&team);
    for (uint32_t i = 0; i + 1 < team.size; i++) call(&workers[i]);
    places before;
    if (cpus) {
        thread_places(&before);
        thread_pin(cpus[0]);
    }
    fn(context, &team, 0);
    team_barrier(&team);
    if (cpus) thread_place(&before);
}

/* Members that steps do without begin to watch, or have ended: nobody waits for them. In this caller's turn. */
static void watch_others(struct pace *pace, uint32_t in_use, uint32_t wanted)
{
    if (atomic_load(&watching.at_it)) return;
    if (watching.wanted == pace) {
        watching.wanted = NULL;
        pace_watched(pace, !atomic_load(&watching.lost));
        return;
    }
    watching.wanted = pace;
    watching.since = team_now();
    atomic_store(&watching.lost, 0);
    atomic_store(&watching.at_it, wanted - in_use);
    for (uint32_t member = in_use; member < wanted; member++) {
        atomic_store(&workers[member - 1].watches, 1);
        call(&workers[member - 1]);
    }
}

void team_take_turn(void)
{
    lock_take(&turn_mutex);
    uint64_t ticket = next_ticket++;
    while (ticket != serving) condition_wait(&turn_changed, &turn_mutex);
    lock_give(&turn_mutex);
}

void team_give_turn(void)
{
    lock_take(&turn_mutex);
    serving++;
    condition_wake_all(&turn_changed);
    lock_give(&turn_mutex);
}

void team_run_in_turn(uint32_t n_threads, const int32_t *cpus, const struct kind *kind, team_fn fn, void *context)
{
    if (n_threads > MAX_THREADS) n_threads = MAX_THREADS;
    if (n_threads < 1) n_threads = 1;
    start_workers(n_threads);
    if (n_threads > n_workers + 1) n_threads = n_workers + 1;
    if (kind && n_threads > 1) {
        struct pace *pace = pace_of(kind);
        uint32_t members = pace_members(pace, n_threads), watched = pace_to_watch(pace);
        if (watched) watch_others(pace, members, watched);
        atomic_store_explicit(&team.waited, 0, memory_order_relaxed);
        uint64_t start = team_now();
        run_members(members, cpus, fn, context);
        pace_learn(pace, members, kind->rows, team_now() - start, atomic_load(&team.waited));
    } else run_members(n_threads, cpus, fn, context);
}

void team_run(uint32_t n_threads, const int32_t *cpus, const struct kind *kind, team_fn fn, void *context)
{
    team_take_turn();
    team_run_in_turn(n_threads, cpus, kind, fn, context);
    team_give_turn();
}
