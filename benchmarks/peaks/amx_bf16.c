/* tdpbf16ps: two tiles times two, the operands staying in their registers. */
#include "peak.h"
#include "amx.h"

static const char *absent(void) { return amx_absent(AMX_BF16); }

static void spin(long rounds, const void *operands)
{
    amx_begin(operands);
    for (long i = 0; i < rounds; i++)
        __asm__ volatile("tdpbf16ps %tmm6, %tmm4, %tmm0\n\ttdpbf16ps %tmm7, %tmm4, %tmm1\n\t"
                         "tdpbf16ps %tmm6, %tmm5, %tmm2\n\ttdpbf16ps %tmm7, %tmm5, %tmm3");
    amx_end();
}

PEAK_MAIN(4 * 8192, 1)
