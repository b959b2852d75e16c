/* A pool of threads for one step at a time. */
#ifndef SIS_TEAM_H
#define SIS_TEAM_H

#include "span.h"

struct team;
typedef void (*team_fn)(void *context, struct team *team, uint32_t member);

/* Runs that are alike: fn does the same for as many `rows` or about as many. */
struct kind {
    const void *work;
    uint32_t rows;
};

/* Run fn on up to n_threads threads, the caller among them (member 0); returns when all are done. Callers in other
 * threads wait for their turn, first come first served. With `cpus`, member m runs on processor cpus[m] where the
 * system knows how; the caller is then let go again. Without `kind` all threads are used, else as many as paid for runs
 * of this kind before; see pace.h. */
void team_run(uint32_t n_threads, const int32_t *cpus, const struct kind *kind, team_fn fn, void *context);
/* The same in parts, for callers that read or write before the run what nobody may change meanwhile. Between taking and
 * giving a turn nothing but team_run_in_turn runs anything. */
void team_take_turn(void);
void team_run_in_turn(uint32_t n_threads, const int32_t *cpus, const struct kind *kind, team_fn fn, void *context);
void team_give_turn(void);
/* The next of this phase's n units of work for a member, or n when none is left. Every member begins with a share of
 * its own, since neighbouring units lie side by side in memory and a stream is read faster than pieces of it; whoever
 * is done helps the next. Which member gets a unit must not matter. */
uint32_t team_claim(struct team *team, uint32_t member, uint32_t n);
/* The same for units that are done faster side by side than one by one: units up to `end`, so many quarters of what is
 * left of a share, or one with 0. */
uint32_t team_claim_some(struct team *team, uint32_t member, uint32_t n, uint32_t quarters, uint32_t *end);
/* Wait until every member is here; then the claims begin again at 0. */
void team_barrier(struct team *team);
/* The same; whoever comes last calls alone(context) before the others go on. A short piece of work done so costs no
 * second barrier, and never waits for a member that the system has put aside. Whoever waits fetches what lies ahead of
 * it into its cache, so that memory does not wait too. */
void team_barrier_then(struct team *team, void (*alone)(void *context), void *context, struct span ahead);
uint32_t team_size(const struct team *team);
/* Nanoseconds of a clock that never goes back. */
uint64_t team_now(void);

#define MAX_THREADS 256

#endif
