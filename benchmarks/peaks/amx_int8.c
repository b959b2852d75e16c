/* tdpbssd: two tiles times two, the operands staying in their registers. */
#include "peak.h"
#include "amx.h"

static const char *absent(void) { return amx_absent(AMX_INT8); }

static void spin(long rounds, const void *operands)
{
    amx_begin(operands);
    for (long i = 0; i < rounds; i++)
        __asm__ volatile("tdpbssd %tmm6, %tmm4, %tmm0\n\ttdpbssd %tmm7, %tmm4, %tmm1\n\t"
                         "tdpbssd %tmm6, %tmm5, %tmm2\n\ttdpbssd %tmm7, %tmm5, %tmm3");
    amx_end();
}

PEAK_MAIN(4 * 16384, 0)
