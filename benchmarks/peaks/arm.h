/* Whether an Arm processor has a feature: the bit that Linux passes on, or the name that macOS answers to. */
#ifndef PEAK_ARM_H
#define PEAK_ARM_H

#if defined(__APPLE__)
#include <stddef.h>
#include <sys/sysctl.h>
#define HAS(vector, bit, name) apple_has(name)
static int apple_has(const char *name)
{
    int value = 0;
    size_t size = sizeof value;
    return !sysctlbyname(name, &value, &size, 0, 0) && value;
}
#else
#include <sys/auxv.h>
#define HAS(vector, bit, name) ((getauxval(vector) >> (bit)) & 1)
#endif

#endif
