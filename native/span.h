/* Memory that will be read soon. */
#ifndef SIS_SPAN_H
#define SIS_SPAN_H

#include <stddef.h>
#include <stdint.h>

struct span {
    const uint8_t *data;
    size_t bytes;
};

/* Ask for its next `lines`, into the second-level cache. */
static inline void sis_ask(struct span *ahead, size_t lines)
{
    for (; lines && ahead->bytes > 64; lines--, ahead->data += 64, ahead->bytes -= 64)
        __builtin_prefetch(ahead->data, 0, 2);
}

#endif
