/* Pages of files and of memory: mapped before they are needed, and given back. */
#if !defined(_WIN32)
#define _GNU_SOURCE /* madvise in strict C11 */
#define _DARWIN_C_SOURCE
#include <sys/mman.h>
#include <unistd.h>
#endif
#include "kernels.h"

#define AROUND ((size_t)1 << 16) /* bytes that a fault of Linux maps, where it is not told otherwise; see sis_bring */
#define PIECE ((size_t)1 << 20)  /* between two looks at whether to stop */
#define LEAST_PAGE 4096

static int is_set(const uint32_t *stop) { return __atomic_load_n(stop, __ATOMIC_RELAXED) != 0; }

#if defined(_WIN32)
void sis_give_back(const uint8_t *data, size_t bytes) { (void)data, (void)bytes; }
#else
void sis_give_back(const uint8_t *data, size_t bytes)
{
    const uintptr_t size = (uintptr_t)sysconf(_SC_PAGESIZE), start = ((uintptr_t)data + size - 1) & ~(size - 1),
                    end = ((uintptr_t)data + bytes) & ~(size - 1);
    if (end > start) madvise((void *)start, end - start, MADV_DONTNEED);
}
#endif

/* By faults: they take a third less time than MADV_POPULATE_READ, and none of the lock of the whole address space, for
 * which a thread that maps or unmaps anything meanwhile waits for milliseconds. Where a fault maps fewer pages than AROUND,
 * those left come when somebody reads them: later, and no less right. */
void sis_bring(const uint8_t *data, size_t bytes)
{
    const uint8_t *const end = data + bytes;
    for (const uint8_t *p = data; p < end; p += AROUND - (uintptr_t)p % AROUND) (void)*(const volatile uint8_t *)p;
}

/* Others may be writing what lies beside these bytes, or these. Compilers make a reading of "p |= 0", and pages that are
 * only read do not come. */
void sis_touch(uint8_t *data, size_t bytes)
{
    uint8_t *const end = data + bytes;
    for (uint8_t *p = data; p < end; p += LEAST_PAGE - (uintptr_t)p % LEAST_PAGE) {
        uint8_t held = __atomic_load_n(p, __ATOMIC_RELAXED);
        __atomic_compare_exchange_n(p, &held, held, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    }
}

void sis_map_file(const uint8_t *data, uint64_t bytes, const uint32_t *stop)
{
    for (size_t at = 0; at < bytes && !is_set(stop); at += PIECE)
        sis_bring(data + at, bytes - at < PIECE ? bytes - at : PIECE);
}

void sis_map_memory(uint8_t *data, uint64_t bytes, const uint32_t *stop)
{
    for (size_t at = 0; at < bytes && !is_set(stop); at += PIECE)
        sis_touch(data + at, bytes - at < PIECE ? bytes - at : PIECE);
}
