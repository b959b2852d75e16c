/* How many members a step should use, learnt as steps go by: a step may be too small to share, and waiting for a member
 * whose processor somebody else uses can cost more than the member brings. */
#ifndef SIS_PACE_H
#define SIS_PACE_H

#include <stdint.h>

#define PACE_ARMS 9 /* all members, half of them, and so on down to one */

/* Steps of one kind: of one program, and of about as many rows. All zero at first. Costs are nanoseconds a row. */
struct pace {
    uint32_t arm;                   /* steps use most >> arm members */
    uint32_t trial;                 /* 1 + the arm on trial, or 0 */
    double cost;                    /* of the arm in use: a mean that forgets; 0 before the first step */
    double waited;                  /* share of a member's time that goes by in long waits: likewise */
    uint32_t since[2], patience[2]; /* steps since more members, or fewer, were tried, and those to wait for it */
    uint32_t tried;                 /* steps of the trial, and what they cost */
    double trial_cost, trial_ns;
};

/* The members that the next step should use, of at most `most`. */
uint32_t pace_members(struct pace *p, uint32_t most);
/* What that step took, and how much of it its members spent in long waits, together. */
void pace_learn(struct pace *p, uint32_t members, uint32_t rows, uint64_t ns, uint64_t waited);

#endif
