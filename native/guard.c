/* Reading files in place, and what becomes of it when somebody cuts them meanwhile; program.h has the contract.
 *
 * The table is read by a signal handler in any thread at any time: records are never freed, only used again, and an end of
 * 0 marks those that guard nothing. */
#if !defined(_WIN32)
#define _GNU_SOURCE /* MAP_ANONYMOUS, siginfo_t in strict C11 */
#define _DARWIN_C_SOURCE
#include <sys/mman.h>
#endif
#include "kernels.h"

#if defined(_WIN32)
/* A file that is mapped cannot be cut on Windows. */
uint64_t sis_guard(const uint8_t *data, uint64_t bytes) { return (void)data, (void)bytes, 0; }
void sis_unguard(uint64_t guard) { (void)guard; }
uint32_t sis_guard_hit(uint64_t guard) { return (void)guard, 0; }
uint64_t sis_guard_hits(void) { return 0; }
#else
#include "thread.h"
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct guard {
    struct guard *next;
    atomic_uintptr_t start, end;
    atomic_uint hit;
};

static _Atomic(struct guard *) guards;
static atomic_ullong hits;
static lock mutex = LOCK_INITIALIZER;
static uintptr_t page;
/* What was there when we came first, and what was there when we came last: those who came in between may lead back here. */
static struct sigaction first, before;
static volatile sig_atomic_t passing;

static int guarded_in(struct guard *g, uintptr_t from, uintptr_t to)
{
    return atomic_load(&g->end) > from && atomic_load(&g->start) < to;
}

/* Whether the address is guarded; then zeros lie there, up to the end of what is, and every guard of these bytes is hit. */
static int answer(uintptr_t address)
{
    struct guard *const all = atomic_load(&guards);
    uintptr_t end = 0;
    for (struct guard *g = all; g; g = g->next)
        if (guarded_in(g, address, address + 1) && atomic_load(&g->end) > end) end = atomic_load(&g->end);
    if (!end) return 0;
    const uintptr_t from = address & ~(page - 1), to = (end + page - 1) & ~(page - 1);
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    if (mmap((void *)from, to - from, PROT_READ, flags, -1, 0) == MAP_FAILED) return 0;
    for (struct guard *g = all; g; g = g->next)
        if (guarded_in(g, from, to)) atomic_store(&g->hit, 1);
    atomic_fetch_add(&hits, 1);
    return 1;
}

static void on_signal(int number, siginfo_t *info, void *context)
{
    const int error = errno;
    if (info->si_code > 0 && answer((uintptr_t)info->si_addr)) { /* 0 and below: somebody sent it */
        errno = error;
        return;
    }
    const struct sigaction to = passing ? first : before;
    passing = 1;
    if (to.sa_flags & SA_SIGINFO) to.sa_sigaction(number, info, context);
    else if (to.sa_handler == SIG_DFL || (to.sa_handler == SIG_IGN && info->si_code > 0)) {
        sigaction(number, &to, NULL); /* an instruction that failed fails again */
        if (info->si_code <= 0) raise(number);
    } else if (to.sa_handler != SIG_IGN) to.sa_handler(number);
    passing = 0;
    errno = error;
}

/* A child of fork has a lock that somebody may hold, and not the thread that would give it back. */
static void forget_lock(void) { mutex = (lock)LOCK_INITIALIZER; }

/* Put the handler where others have put theirs since, or at all. */
static void watch(void)
{
    struct sigaction now, ours;
    sigaction(SIGBUS, NULL, &now);
    if (now.sa_flags & SA_SIGINFO && now.sa_sigaction == on_signal) return;
    if (!page) {
        first = now;
        thread_after_fork(forget_lock);
    }
    page = (uintptr_t)sysconf(_SC_PAGESIZE);
    before = now;
    memset(&ours, 0, sizeof ours);
    ours.sa_sigaction = on_signal;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(SIGBUS, &ours, NULL);
}

uint64_t sis_guard(const uint8_t *data, uint64_t bytes)
{
    if (!bytes) return 0;
    lock_take(&mutex);
    watch();
    struct guard *g = atomic_load(&guards);
    while (g && atomic_load(&g->end)) g = g->next;
    if (!g && (g = calloc(1, sizeof *g))) {
        g->next = atomic_load(&guards);
        atomic_store(&guards, g);
    }
    if (g) {
        atomic_store(&g->hit, 0);
        atomic_store(&g->start, (uintptr_t)data);
        atomic_store(&g->end, (uintptr_t)data + bytes);
    }
    lock_give(&mutex);
    return (uintptr_t)g;
}

void sis_unguard(uint64_t guard)
{
    if (guard) atomic_store(&((struct guard *)(uintptr_t)guard)->end, 0);
}

uint32_t sis_guard_hit(uint64_t guard) { return guard ? atomic_load(&((struct guard *)(uintptr_t)guard)->hit) : 0; }

uint64_t sis_guard_hits(void) { return atomic_load(&hits); }
#endif
