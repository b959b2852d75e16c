/* Which experts each row uses, and how much of each. Source: as sis_core/experts.py. */
#include "run.h"
#define VL 4
#include "vec.h"

static float sigmoid(float x)
{
    float e[VL];
    v_store(e, v_exp(v_set(-x)));
    return 1.0f / (1.0f + e[0]);
}

/* In place; sums go in order, so that a row's result does not depend on the machine's vectors. */
static void softmax(float *x, uint32_t n)
{
    float most = x[0], sum = 0;
    for (uint32_t i = 1; i < n; i++) most = x[i] > most ? x[i] : most;
    for (uint32_t i = 0; i < n; i += VL) {
        float e[VL] = {0};
        const uint32_t m = n - i < VL ? n - i : VL;
        memcpy(e, x + i, m * sizeof *e);
        v_store(e, v_exp(v_load(e) - most));
        for (uint32_t j = 0; j < m; j++) sum += x[i + j] = e[j];
    }
    for (uint32_t i = 0; i < n; i++) x[i] /= sum;
}

/* The place of the highest that is not taken, the first of equals; NaN never counts as higher. */
static uint32_t best_left(const float *scores, const uint8_t *taken, uint32_t n)
{
    uint32_t best = n;
    for (uint32_t i = 0; i < n; i++)
        if (!taken[i] && (best == n || scores[i] > scores[best])) best = i;
    return best;
}

static float best_two(const float *scores, uint32_t n)
{
    float first = scores[0], second = 0;
    for (uint32_t i = 1; i < n; i++) {
        const float low = scores[i] > first ? first : scores[i];
        second = i == 1 || low > second ? low : second;
        first = scores[i] > first ? scores[i] : first;
    }
    return first + second;
}

/* Take every expert outside the best groups. */
static void keep_groups(const struct sis_experts *e, const float *scores, uint8_t *taken)
{
    const uint32_t size = e->n_expert / e->n_group;
    float sums[SIS_MAX_EXPERTS];
    uint8_t kept[SIS_MAX_EXPERTS] = {0};
    for (uint32_t g = 0; g < e->n_group; g++) sums[g] = best_two(scores + g * size, size);
    for (uint32_t i = 0; i < e->n_group_used; i++) kept[best_left(sums, kept, e->n_group)] = 1;
    for (uint32_t i = 0; i < e->n_expert; i++) taken[i] = !kept[i / size];
}

/* What an expert with the logit `most` gets among those that are left and at most a fiftieth below it. */
static float sparse_mixer(const float *logits, const uint8_t *taken, uint32_t n, float most)
{
    float sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        const float size = logits[i] < 0 ? -logits[i] : logits[i];
        if (taken[i] || most - logits[i] > 0.02f * (size > most ? size : most)) continue;
        float e[VL];
        v_store(e, v_exp(v_set(logits[i] - most)));
        sum += e[0];
    }
    return 1.0f / sum;
}

void route_row(const struct run *run, const struct sis_op *op, uint32_t row)
{
    const struct sis_experts *e = op->experts;
    const uint32_t n = e->n_expert, n_used = e->n_used;
    float scores[SIS_MAX_EXPERTS], selected[SIS_MAX_EXPERTS], *chosen = at(run, e->chosen, row, 0);
    float *weights = chosen + 2 * n_used, sum = 0;
    uint8_t taken[SIS_MAX_EXPERTS] = {0};
    memcpy(scores, at(run, op->src, row, op->src_at), n * sizeof *scores);
    if (e->gating == SIS_SOFTMAX) softmax(scores, n);
    for (uint32_t i = 0; e->gating == SIS_SIGMOID && i < n; i++) scores[i] = sigmoid(scores[i]);
    for (uint32_t i = 0; i < n; i++) selected[i] = e->selection_bias ? scores[i] + e->selection_bias[i] : scores[i];
    if (e->n_group > 1) keep_groups(e, selected, taken);
    for (uint32_t slot = 0; slot < n_used; slot++) {
        const uint32_t best = best_left(selected, taken, n);
        weights[slot] = scores[best];
        if (e->gating == SIS_SPARSE_MIXER) weights[slot] = sparse_mixer(scores, taken, n, scores[best]);
        taken[best] = 1;
        memcpy(chosen + slot, &best, sizeof best);
    }
    if (e->gating == SIS_SOFTMAX_WEIGHT) softmax(weights, n_used);
    for (uint32_t slot = 0; slot < n_used; slot++) sum += weights[slot];
    const float share = e->flags & SIS_RENORMALISE ? sum + 1e-20f : 1.0f;
    for (uint32_t slot = 0; slot < n_used; slot++) weights[slot] = weights[slot] / share * e->scale;
}

/* The results of a row's experts in the order in which they were chosen, so that company changes no bits: those columns
 * from `first` on that are there. */
void combine_columns(const struct run *run, const struct sis_op *op, uint32_t row, size_t first)
{
    const struct sis_experts *e = op->experts;
    const float *chosen = at(run, e->chosen, row, 0), *weights = chosen + 2 * e->n_used;
    const size_t n = experts_columns(e, run->n_rows[0]), left = e->n_out - first;
    float *dst = at(run, op->dst, row, op->dst_at + (uint32_t)first);
    for (size_t column = 0; column < (n < left ? n : left); column += TILE) {
        float sum[TILE] = {0};
        for (uint32_t slot = 0; slot < e->n_used; slot++) {
            uint32_t place;
            memcpy(&place, chosen + e->n_used + slot, sizeof place);
            const float *y = run->expert_out + place * n + column;
            const float weight = e->flags & SIS_SCALE_INPUT ? 1.0f : weights[slot];
            for (int i = 0; i < TILE; i++) sum[i] += weight * y[i];
        }
        for (int i = 0; i < TILE; i++) dst[column + i] = op->flags & SIS_ADD ? dst[column + i] + sum[i] : sum[i];
    }
}

void combine_row(const struct run *run, const struct sis_op *op, uint32_t row)
{
    const size_t n = experts_columns(op->experts, run->n_rows[0]);
    combine_columns(run, op, row, (op->experts->n_out - 1) / n * n);
}

void gate_row(const struct run *run, const struct sis_op *op, uint32_t row)
{
    const float share = sigmoid(*at(run, op->src2, row, op->src2_at)), *src = at(run, op->src, row, op->src_at);
    float *dst = at(run, op->dst, row, op->dst_at);
    for (uint32_t i = 0; i < op->width; i++) dst[i] = op->flags & SIS_ADD ? dst[i] + share * src[i] : share * src[i];
}
