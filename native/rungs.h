/* What a plugin's dispatch.c tells of its instruction sets, so that choose.c can choose one. */
#ifndef SIS_RUNGS_H
#define SIS_RUNGS_H

#include "kernels.h"

struct rung {
    const char *isa;
    uint32_t needs; /* features, numbered by the plugin */
    const struct kernels *kernels;
    const struct many_rows *many; /* or NULL */
};

extern const struct kernels sis_portable;

extern const struct rung sis_rungs[]; /* from the lowest, which needs nothing, to the highest; then one without name */
extern const char sis_not_a_rung[];   /* what is said of another name in SIS_ISA */
uint32_t sis_features(void);          /* that this machine has */
uint32_t sis_far_of(uint32_t features); /* what such machines want for sis_far */
/* Asked last, of a rung that is about to be used: why the system does not let this process use it, or NULL. */
const char *sis_refusal(uint32_t needs);

#endif
