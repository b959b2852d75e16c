/* Two arms are compared by a short trial of the neighbouring one. A trial that fails doubles the patience until the next;
 * fewer members are tried only where there is something to gain: steps are small, or members wait. So a quiet machine
 * pays for next to no trials, and a busy one for one step in a hundred. */
#include "pace.h"

#define MORE 0
#define FEWER 1
#define FIRST_PATIENCE 8 /* steps */
#define TRIAL_STEPS 4
#define TRIAL_NS 20e6  /* a trial is over, however few steps it had */
#define SMALL_NS 1e6   /* steps that may be too small to share */
#define DISTURBED 0.08 /* share of long waits: a quiet step of a small model has half of that */
#define WORTH 0.97     /* what a trial must cost at most, of what the arm in use does */

static const uint32_t MOST_PATIENCE[] = {128,
                                         512}; /* asking for more members again costs little, and they may be free */

static uint32_t last_arm(uint32_t most)
{
    uint32_t arm = 0;
    while (arm + 1 < PACE_ARMS && most >> (arm + 1)) arm++;
    return arm;
}

static void begin_trial(struct pace *p, uint32_t arm)
{
    p->trial = arm + 1;
    p->tried = 0;
    p->trial_cost = p->trial_ns = 0;
}

uint32_t pace_members(struct pace *p, uint32_t most)
{
    const uint32_t last = last_arm(most);
    if (p->arm > last || p->trial > last + 1) *p = (struct pace){0}; /* fewer are allowed than before */
    if (!p->patience[MORE]) p->patience[MORE] = p->patience[FEWER] = FIRST_PATIENCE;
    if (!p->trial && p->cost > 0) {
        if (p->arm > 0 && p->since[MORE] >= p->patience[MORE]) begin_trial(p, p->arm - 1);
        else if (p->arm < last && p->since[FEWER] >= p->patience[FEWER]) begin_trial(p, p->arm + 1);
    }
    return most >> (p->trial ? p->trial - 1 : p->arm);
}

static void end_trial(struct pace *p)
{
    const uint32_t arm = p->trial - 1;
    const int way = arm < p->arm ? MORE : FEWER;
    const double cost = p->trial_cost / p->tried;
    p->trial = 0;
    p->since[way] = 0;
    if (cost < p->cost * WORTH) {
        p->arm = arm;
        p->cost = cost;
        p->waited = 0;
        p->since[MORE] = p->since[FEWER] = 0;
        p->patience[MORE] = p->patience[FEWER] = FIRST_PATIENCE;
    } else if (p->patience[way] < MOST_PATIENCE[way]) p->patience[way] *= 2;
}

void pace_learn(struct pace *p, uint32_t members, uint32_t rows, uint64_t ns, uint64_t waited)
{
    const double cost = (double)ns / (rows ? rows : 1), share = ns ? (double)waited / ((double)ns * members) : 0;
    if (p->trial) {
        p->tried++;
        p->trial_cost += cost;
        p->trial_ns += (double)ns;
        if (p->tried == TRIAL_STEPS || p->trial_ns >= TRIAL_NS) end_trial(p);
        return;
    }
    p->cost += p->cost > 0 ? (cost - p->cost) / 8 : cost;
    p->waited += (share - p->waited) / 8;
    p->since[MORE]++;
    if ((double)ns < SMALL_NS || p->waited > DISTURBED) p->since[FEWER]++;
}
