/* What the pool of threads needs of the system: locks, conditions, threads, a clock, and places to run. */
#ifndef SIS_THREAD_H
#define SIS_THREAD_H

#include <stdint.h>

static inline void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#if defined(_WIN32)
#include "thread_windows.inc"
#else
#include "thread_posix.inc"
#endif

#endif
