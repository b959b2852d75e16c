/* Chooses one of the plugin's instruction sets, by feature bits alone: the highest that the machine has, or a lower one
 * that SIS_ISA forces; a higher one than the machine has is not possible. */
#include "rungs.h"
#include <stdlib.h>
#include <string.h>

static struct kernels chosen;
static const char *note = "";
size_t sis_far;

static int count_rungs(void)
{
    int n = 0;
    while (sis_rungs[n].isa) n++;
    return n;
}

/* The number of a rung; below 0 where no rung is called so. */
static int rung_named(const char *name)
{
    int i = count_rungs() - 1;
    while (i >= 0 && strcmp(sis_rungs[i].isa, name)) i--;
    return i;
}

/* Runs when the library is loaded, before any thread can ask. */
__attribute__((constructor)) static void choose(void)
{
    const char *wanted = getenv("SIS_ISA");
    const uint32_t found = sis_features();
    int highest = count_rungs() - 1;
    if (wanted && *wanted) {
        int named = rung_named(wanted);
        if (named < 0) note = sis_not_a_rung;
        else if (sis_rungs[named].needs & ~found) note = "SIS_ISA names instructions that this machine does not have";
        else {
            highest = named;
            note = "chosen by SIS_ISA";
        }
    }
    int i = highest;
    for (; sis_rungs[i].needs; i--) {
        if (sis_rungs[i].needs & ~found) continue;
        const char *refusal = sis_refusal(sis_rungs[i].needs);
        if (!refusal) break;
        note = refusal;
    }
    sis_far = sis_far_of(found);
    chosen = *sis_rungs[i].kernels;
    chosen.isa = sis_rungs[i].isa;
    chosen.many = sis_rungs[i].many;
}

const struct kernels *sis_kernels(void) { return &chosen; }

const char *sis_isa_note(void) { return note; }
