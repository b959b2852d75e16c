/* The instruction sets of 64-bit ARM and the features that they need: what the system says that programs may use. */
#include "rungs.h"

extern const struct kernels sis_neon, sis_neon_dotprod, sis_neon_fhm, sis_neon_i8mm;
extern const struct many_rows sis_many_dotprod, sis_many_i8mm;

enum feature { NEON = 1, DOTPROD = 2, FHM = 4, I8MM = 8 };

const struct rung sis_rungs[] = {
    {"portable", 0, &sis_portable, NULL},
    {"neon", NEON, &sis_neon, NULL},
    {"neon_dotprod", NEON | DOTPROD, &sis_neon_dotprod, &sis_many_dotprod},
    {"neon_fhm", NEON | DOTPROD | FHM, &sis_neon_fhm, &sis_many_dotprod},
    {"neon_i8mm", NEON | DOTPROD | FHM | I8MM, &sis_neon_i8mm, &sis_many_i8mm},
    {NULL, 0, NULL, NULL},
};
const char sis_not_a_rung[] = "SIS_ISA is not one of portable, neon, neon_dotprod, neon_fhm, neon_i8mm";

#if defined(__APPLE__)
#include <sys/sysctl.h>

static int has(const char *name)
{
    int value = 0;
    size_t size = sizeof value;
    return !sysctlbyname(name, &value, &size, NULL, 0) && value;
}

static int has_dotprod(void) { return has("hw.optional.arm.FEAT_DotProd"); }
static int has_fhm(void) { return has("hw.optional.arm.FEAT_FHM"); }
static int has_i8mm(void) { return has("hw.optional.arm.FEAT_I8MM"); }
#else
#include <sys/auxv.h>

/* Bits as the kernel numbers them; older headers lack the names. */
static int has_dotprod(void) { return getauxval(AT_HWCAP) >> 20 & 1; }
static int has_fhm(void) { return getauxval(AT_HWCAP) >> 23 & 1; }
static int has_i8mm(void) { return getauxval(AT_HWCAP2) >> 13 & 1; }
#endif

uint32_t sis_features(void)
{
    return NEON | (has_dotprod() ? DOTPROD : 0) | (has_fhm() ? FHM : 0) | (has_i8mm() ? I8MM : 0);
}

uint32_t sis_far_of(uint32_t features)
{
    (void)features; /* nobody has measured it */
    return 0;
}

const char *sis_refusal(uint32_t needs)
{
    (void)needs;
    return NULL;
}
