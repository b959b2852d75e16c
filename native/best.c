/* The likeliest of a row of logits, and what tells whether all of them are numbers. */
#include "run.h"
#include <math.h>

#define LANES 16

struct sis_best sis_best(const float *row, uint32_t n)
{
    float high[LANES], low[LANES];
    uint32_t nan = 0, i = 0, token = 0;
    for (int l = 0; l < LANES; l++) high[l] = -INFINITY, low[l] = INFINITY;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) {
            const float value = row[i + l];
            high[l] = value > high[l] ? value : high[l];
            low[l] = value < low[l] ? value : low[l];
            nan |= value != value;
        }
    for (; i < n; i++) {
        high[0] = row[i] > high[0] ? row[i] : high[0];
        low[0] = row[i] < low[0] ? row[i] : low[0];
        nan |= row[i] != row[i];
    }
    if (nan) return (struct sis_best){0, NAN, NAN};
    for (int l = 1; l < LANES; l++) {
        high[0] = high[l] > high[0] ? high[l] : high[0];
        low[0] = low[l] < low[0] ? low[l] : low[0];
    }
    for (uint32_t found = 0; token + LANES <= n; token += LANES) { /* the first of equal ones */
        for (int l = 0; l < LANES; l++) found |= row[token + l] == high[0];
        if (found) break;
    }
    while (row[token] != high[0]) token++;
    return (struct sis_best){token, high[0], low[0]};
}
