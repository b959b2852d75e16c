/* How many members a step should use, learnt as steps go by: a step may be too small to share, and waiting for a member
 * whose processor somebody else uses can cost more than the member brings. */
#ifndef SIS_PACE_H
#define SIS_PACE_H

#include <stdint.h>

#define PACE_ARMS 9 /* all members, half of them, and so on down to one */

/* Steps of one kind: of one program, and of about as many rows. All zero at first. */
struct pace {
    uint32_t most;              /* members that may be used; of another number nothing is known */
    uint32_t arm;               /* steps use most >> arm members */
    uint32_t trial;             /* 1 + the arm on trial, or 0 */
    uint32_t n_steps;           /* of those that come before any trial */
    double ns, rows, waited_ns; /* of the arm in use, as sums that forget: steps, and a member's long waits in them */
    uint32_t tried;             /* steps of the trial */
    double trial_ns, trial_rows;
    double due[2];                 /* nanoseconds of steps until more members, or fewer, are tried */
    double seen[2];                /* nanoseconds a row in the last of those trials, if it failed; else 0 */
    uint32_t failures[2];          /* of those trials */
    double kept_ns;                /* how long the arm in use has been that */
    uint32_t came;                 /* 1 + the way by which it was come to, or 0 after a while */
    double before;                 /* nanoseconds a row of the arm that was left for it */
    uint32_t absences;             /* steps in a row in which members were long absent */
    double absent_ns, absent_rows; /* of those steps */
    uint32_t watch; /* members were left out since they were absent: so often they are watched before they are tried */
};

/* How many members there would be if their processors were free, or 0. What is found is told by pace_watched, at any
 * time later; until then no more members are tried. */
uint32_t pace_to_watch(const struct pace *p);
void pace_watched(struct pace *p, int are_free);
/* The members that the next step should use, of at most `most`. */
uint32_t pace_members(struct pace *p, uint32_t most);
/* What that step took, and how much of it its members spent in long waits, together. */
void pace_learn(struct pace *p, uint32_t members, uint32_t rows, uint64_t ns, uint64_t waited);

#endif
