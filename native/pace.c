/* Two arms are compared by a trial of the neighbouring one. A system gives processors in slices of some milliseconds, so
 * a few short steps say little: what is compared is time over several slices. A trial ends as soon as it has cost too
 * much, and the next waits until that is a small share of the time between; each that fails makes the share smaller.
 * Fewer members are tried only where there is something to gain: steps are small, or members wait. Members that were left
 * out because somebody else had their processors are not tried before those have been seen free, which costs no step
 * anything. So a quiet machine pays for next to no trials, and a busy one at most a hundredth of its time. */
#include "pace.h"

#define MORE 0
#define FEWER 1
#define WINDOW_NS 80e6  /* what the mean of the arm in use remembers, but */
#define MOST_NEWS 0.125 /* a step is never more than that of it */
#define FIRST_STEPS 4   /* weights are packed in them, and memory is new */
#define TRIAL_NS 24e6   /* a trial that goes well lasts so long: some slices of a system's */
#define TRIAL_STEPS 4
#define TOO_MUCH_NS 4e6 /* what it may lose: one that is not there when needed costs a slice */
#define SETTLED_NS 40e6 /* between one change and the next trial */
#define KEPT_NS 1e9     /* an arm that was left sooner was a mistake, or others come and go as fast */
#define FIRST_SHARE 32  /* times what a trial cost are waited for the next; each failure doubles that, up to */
#define MOST_FAILURES 2
#define SMALL_NS 1e6   /* steps that may be too small to share */
#define DISTURBED 0.08 /* share of long waits: a quiet step of a small model has half of that */
#define ABSENT 0.2     /* share of a step in long waits, and */
#define ABSENT_NS 2e6  /* how long, where a member was absent: a slice of a system's */
#define WATCH_NS 400e6 /* until those that are still absent are watched again */
#define WATCHES 8      /* after so many they are tried all the same: half a processor may be better than none */
#define WORTH 0.97     /* what a trial must cost at most, of what the arm in use does */

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
    p->trial_ns = p->trial_rows = 0;
}

uint32_t pace_to_watch(const struct pace *p)
{
    return p->watch && !p->trial && p->arm > 0 && p->due[MORE] <= 0 ? p->most >> (p->arm - 1) : 0;
}

void pace_watched(struct pace *p, int are_free)
{
    p->watch = are_free ? 0 : p->watch - 1;
    if (!are_free) p->due[MORE] = WATCH_NS;
}

uint32_t pace_members(struct pace *p, uint32_t most)
{
    const uint32_t last = last_arm(most);
    if (p->most != most) *p = (struct pace){.most = most, .due = {SETTLED_NS, SETTLED_NS}};
    if (!p->trial && p->n_steps >= FIRST_STEPS) {
        if (p->arm > 0 && p->due[MORE] <= 0 && !p->watch) begin_trial(p, p->arm - 1);
        else if (p->arm < last && p->due[FEWER] <= 0 && p->absences != 1) begin_trial(p, p->arm + 1);
    }
    return most >> (p->trial ? p->trial - 1 : p->arm);
}

/* The next trial of that way comes once what the last one cost is a small share of the time since, or the arm in use has
 * become dearer than what was `seen` of the other. */
static void failed(struct pace *p, int way, double cost_ns, double seen)
{
    p->seen[way] = seen;
    if (way == MORE && cost_ns > TOO_MUCH_NS) p->watch = WATCHES;
    const double share = (double)(FIRST_SHARE << p->failures[way]);
    p->due[way] = cost_ns * share > SETTLED_NS ? cost_ns * share : SETTLED_NS;
    if (p->failures[way] < MOST_FAILURES) p->failures[way]++;
}

/* From now on another arm is in use, whose steps cost `ns` for `rows`. */
static void change(struct pace *p, uint32_t arm, double ns, double rows)
{
    p->arm = arm;
    p->ns = ns;
    p->rows = rows;
    p->waited_ns = p->kept_ns = 0;
    p->absences = 0;
    p->due[MORE] = p->due[FEWER] = SETTLED_NS;
    p->seen[MORE] = p->seen[FEWER] = 0;
}

static void succeeded(struct pace *p, int way)
{
    if (p->kept_ns >= KEPT_NS) p->failures[MORE] = p->failures[FEWER] = 0;
    p->came = (uint32_t)way + 1;
    p->before = p->ns / p->rows;
    p->watch = way == FEWER && p->waited_ns > DISTURBED * p->ns ? WATCHES : 0;
    change(p, p->trial - 1, p->trial_ns, p->trial_rows);
}

/* A trial may be lucky: the arm that it found is left again if it costs more than the one before. */
static void look_back(struct pace *p)
{
    const double cost = p->ns / p->rows;
    if (p->kept_ns >= KEPT_NS) p->came = 0;
    if (!p->came || p->kept_ns < SETTLED_NS || cost <= p->before) return;
    const int way = (int)p->came - 1;
    const double lost = p->kept_ns * (1 - p->before / cost);
    change(p, way == MORE ? p->arm + 1 : p->arm - 1, p->before * p->rows, p->rows);
    failed(p, way, lost, cost);
    p->came = 0;
}

static void learn_of_trial(struct pace *p)
{
    const int way = p->trial - 1 < p->arm ? MORE : FEWER;
    const double lost = p->trial_ns - p->ns / p->rows * p->trial_rows * WORTH;
    p->tried++;
    if (lost < TOO_MUCH_NS && (p->trial_ns < TRIAL_NS || p->tried < TRIAL_STEPS)) return;
    if (lost < 0) succeeded(p, way);
    else failed(p, way, lost, p->trial_ns / p->trial_rows);
    p->trial = 0;
}

/* Time goes by until the next trial of that way. */
static void look_for(struct pace *p, int way, double time)
{
    p->due[way] -= time;
    if (p->seen[way] && p->ns > p->seen[way] * p->rows && p->due[way] > SETTLED_NS) p->due[way] = SETTLED_NS;
}

/* Once may be chance; after a second time in a row, what steps cost before says nothing more. */
static void look_for_absence(struct pace *p, double time, double rows, double wait)
{
    if (wait < ABSENT_NS || wait < ABSENT * time) {
        p->absences = 0;
        return;
    }
    if (++p->absences == 1) p->absent_ns = p->absent_rows = 0;
    p->absent_ns += time;
    p->absent_rows += rows;
    if (p->absences != 2) return;
    p->ns = p->absent_ns;
    p->rows = p->absent_rows;
    p->waited_ns = ABSENT * p->ns;
    p->due[FEWER] = 0;
}

void pace_learn(struct pace *p, uint32_t members, uint32_t rows, uint64_t ns, uint64_t waited)
{
    const double time = (double)ns, wait = (double)waited / members, n = rows ? rows : 1;
    const double news = time / WINDOW_NS < MOST_NEWS ? time / WINDOW_NS : MOST_NEWS;
    if (p->trial) {
        p->trial_ns += time;
        p->trial_rows += n;
        learn_of_trial(p);
        return;
    }
    p->ns += time - p->ns * news;
    p->rows += n - p->rows * news;
    p->waited_ns += wait - p->waited_ns * news;
    p->kept_ns += time;
    if (p->n_steps < FIRST_STEPS) p->n_steps++;
    look_for(p, MORE, time);
    if (time < SMALL_NS || p->waited_ns > DISTURBED * p->ns) look_for(p, FEWER, time);
    look_back(p);
    look_for_absence(p, time, n, wait);
}
