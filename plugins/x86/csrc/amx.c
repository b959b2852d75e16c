/* Many rows at once with AMX: tiles of 16 rows of 32 bfloat16. A panel of 32 rows of weights is expanded to bfloat16 in
 * scratch that stays in the first-level cache, and multiplied with the activations 32 rows at a time; the next panel is
 * expanded between the multiplications, which leave the vector units idle.
 *
 * Integer weights are rounded to bfloat16 once they are scaled, and so are their activations: a relative 2^-8 at most.
 * Float weights would lose by that what they are chosen for: they and their activations are split into two bfloat16
 * each, w = w1 + w2 and x = x1 + x2, and x1 w1 + x2 w1 + x1 w2 is off by 3 * 2^-16 at most (Henry, Tang and Heinecke
 * 2019, "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations").
 *
 * Sizes here were measured on a Sapphire Rapids. */
#define VL 16
#include "vec.h"
#include "kinds.h"
#include "tiles.h"
#include "bfloats.h"
#include "ternary.h"

#define SIDE 32  /* rows of activations, and rows of weights, of four tiles of sums */
#define STEP 32  /* values of k of a tile */
#define PIECES 8 /* in which the weights of a step are expanded: quarters of two tiles */

#define FROM 17                    /* rows: to 16 amx_int8.c is faster */
#define FROM_FLOATS 16             /* rows: it overtakes avx512_vnni between 12 and 16 */
#define PANEL_BYTES (16 << 10)     /* 256 values of k of 32 rows of weights; half as many where weights are split */
#define FEW_PANEL_BYTES (12 << 10) /* where two spans of rows at most use a panel, before the next is needed */
#define FEW_SPANS 2
#define PIECE_BYTES (1 << 19) /* of activations that a job reads again and again: a quarter of the second-level cache */
#define MOST 256              /* rows of a unit: fewer would expand weights too often */
#define UNITS 4               /* of a job: activations of a long k come from afar for each job */
#define AHEAD 2048            /* bytes of weights that are fetched ahead */
#define LINES 2               /* of what comes after the unit, a step */

/* Bytes of a step: two tiles, then the two of what rounding the first has left. */
INLINE size_t x_step(uint32_t form) { return form == SIS_FLOAT ? 4 * ONE : 2 * ONE; }
INLINE int is_split(uint32_t format) { return format == SIS_F32 || format == SIS_F16 || format == SIS_DECODED; }
INLINE size_t w_step(uint32_t format) { return is_split(format) ? 4 * ONE : 2 * ONE; }
INLINE int has_floats(uint32_t format) { return is_split(format) || format == SIS_BF16; }

static size_t steps_of(size_t k) { return (k + STEP - 1) / STEP; }

/* Activations: [rows / 32][k / 32] steps. Rows past the last are never written: what they give is not stored. */
static size_t x_bytes(uint32_t rows, size_t k, uint32_t form)
{
    return (rows + SIDE - 1) / SIDE * steps_of(k) * x_step(form);
}

/* What a piece holds, where k is so short that it need not be cut. */
static uint32_t most_rows(uint32_t rows, size_t k, uint32_t form)
{
    size_t fit = PIECE_BYTES / (steps_of(k) * x_step(form)) * SIDE, whole = (rows + SIDE - 1) / SIDE * SIDE;
    if (fit < MOST) fit = MOST;
    return (uint32_t)(fit < whole ? fit : whole);
}

/* Chunks of equal size. */
static uint32_t unit_rows(uint32_t rows, size_t k, uint32_t form)
{
    uint32_t most = most_rows(rows, k, form), chunks = (rows + most - 1) / most;
    return ((rows + chunks - 1) / chunks + SIDE - 1) / SIDE * SIDE;
}

/* Two panels, and the sums of a unit's rows with the weights of a job. */
static size_t scratch_bytes(uint32_t rows, size_t k, uint32_t form)
{
    return 2 * PANEL_BYTES + (size_t)most_rows(rows, k, form) * (UNITS * TILE << LOG_TILES) * sizeof(float);
}

static void prepare(const struct unprepared *u, void *out)
{
    const size_t steps = steps_of(u->k);
    for (size_t at = 0; at < u->n; at += STEP)
        for (uint32_t i = 0; i < u->m; i++) {
            const uint32_t r = u->first + i;
            const float *v = u->x + i * u->stride + at;
            const uint32_t mask = u->n - at < STEP ? (1u << (u->n - at)) - 1 : ~0u;
            const __m512 a = _mm512_maskz_loadu_ps((__mmask16)mask, v);
            const __m512 b = _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), v + 16);
            const size_t step = r / SIDE * steps + (u->column + at) / STEP;
            uint8_t *o = (uint8_t *)out + step * x_step(u->form) + r % SIDE * 64;
            put_row(u->form == SIS_FLOAT, o, a, b, 2 * ONE);
        }
}

/* Numbers, and of those that are none one that stays so when it is rounded. */
INLINE __m512 numbers(__m512 v) { return _mm512_fixupimm_ps(v, v, _mm512_set1_epi32(0x11111133), 0); }

/* A row of a tile of weights. The nearest bfloat16, of two the further from zero: the instructions of `put` take twice as
 * long. */
INLINE void put_weights(uint8_t *out, __m512 even, __m512 odd)
{
    const __m512i half = _mm512_set1_epi32(0x8000), upper = _mm512_set1_epi32((int)0xffff0000);
    const __m512i low = _mm512_srli_epi32(_mm512_add_epi32((__m512i)even, half), 16);
    const __m512i high = _mm512_add_epi32((__m512i)odd, half);
    _mm512_store_si512(out, _mm512_ternarylogic_epi32(high, upper, low, 0xea)); /* (high & upper) | low */
}

/* Two rows of a tile, from a quad of codes in bytes: code * scale + offset. */
INLINE void put_codes(uint8_t *out, __m512i v, __m512 scale, __m512 offset)
{
    const __m512i byte = _mm512_set1_epi32(255);
    UNROLL_FOR (int j = 0; j < 2; j++) {
        const __m512i even = _mm512_and_si512(_mm512_srli_epi32(v, (unsigned)(16 * j)), byte);
        const __m512i odd = j ? _mm512_srli_epi32(v, 24) : _mm512_and_si512(_mm512_srli_epi32(v, 8), byte);
        put_weights(out + j * 64, _mm512_fmadd_ps(_mm512_cvtepi32_ps(even), scale, offset),
                    _mm512_fmadd_ps(_mm512_cvtepi32_ps(odd), scale, offset));
    }
}

/* Two rows from signed bytes: code * scale + offset. */
INLINE void put_bytes(uint8_t *out, __m512i v, __m512 scale, __m512 offset)
{
    UNROLL_FOR (int j = 0; j < 2; j++) {
        const __m512i even = _mm512_srai_epi32(_mm512_slli_epi32(v, (unsigned)(24 - 16 * j)), 24);
        const __m512i odd = _mm512_srai_epi32(_mm512_slli_epi32(v, (unsigned)(16 - 16 * j)), 24);
        put_weights(out + j * 64, _mm512_fmadd_ps(_mm512_cvtepi32_ps(even), scale, offset),
                    _mm512_fmadd_ps(_mm512_cvtepi32_ps(odd), scale, offset));
    }
}

/* Four rows from two quads of codes of four bits. */
INLINE void put_nibbles(uint8_t *out, __m512i v, __m512 values, __m512 scale, __m512 offset)
{
    UNROLL_FOR (int j = 0; j < 4; j++) {
        const unsigned shift = (unsigned)(j % 2 * 16 + j / 2 * 4);
        const __m512 even = _mm512_permutexvar_ps(_mm512_srli_epi32(v, shift), values);
        const __m512 odd = _mm512_permutexvar_ps(_mm512_srli_epi32(v, shift + 8), values);
        put_weights(out + j * 64, _mm512_fmadd_ps(even, scale, offset), _mm512_fmadd_ps(odd, scale, offset));
    }
}

INLINE __m128i sixteen(const uint8_t *p) { return _mm_loadu_si128((const void *)p); }
INLINE __m512 from_bytes(__m128i bytes, int is_signed)
{
    return _mm512_cvtepi32_ps(is_signed ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes));
}

/* Sixteen scales of a group, or minima; `super` is where their super-scales lie. */
INLINE __m512 scales_from(const struct sis_kind kind, const uint8_t *p, const uint8_t *super, int is_minimum)
{
    const __m256i two = _mm256_loadu_si256((const void *)p);
    if (kind.scales == SIS_HALF) return _mm512_cvtph_ps(two);
    if (kind.scales == SIS_BFLOAT) return widened(two);
    const __m512 supers = _mm512_cvtph_ps(_mm256_loadu_si256((const void *)super));
    if (kind.scales == SIS_SUPER) return supers;
    __m128i bytes = sixteen(p);
    if (kind.scales == SIS_NIBBLE)
        bytes = _mm_and_si128(is_minimum ? _mm_srli_epi16(bytes, 4) : bytes, _mm_set1_epi8(15));
    return _mm512_mul_ps(supers, from_bytes(bytes, kind.scales != SIS_NIBBLE && !is_minimum));
}

/* What codes stand for in the table at w. */
INLINE __m512i entries(const struct sis_kind kind, const uint8_t *w, __m512i codes)
{
    if (kind.bits < 6) return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(sixteen(w)), codes);
    const __m512i part = _mm512_and_si512(_mm512_srli_epi16(codes, 4), _mm512_set1_epi8(3));
    __m512i found = _mm512_setzero_si512();
    UNROLL_FOR (int i = 0; i < 4; i++)
        found = _mm512_mask_shuffle_epi8(found, _mm512_cmpeq_epi8_mask(part, _mm512_set1_epi8((char)i)),
                                         _mm512_broadcast_i32x4(sixteen(w + 16 * i)), codes);
    return found;
}

/* Four rows from codes of rows that have tables of their own: two quads of the four of sixteen columns. */
INLINE void put_rows(uint8_t *out, const uint8_t *w, const uint8_t *q, int quarter, __m512 scale)
{
    __m512i v[4], pairs[2];
    UNROLL_FOR (int g = 0; g < 4; g++) {
        const __m512i codes = _mm512_srli_epi16(_mm512_loadu_si512(q + 64 * g), (unsigned)(quarter / 2 * 4));
        v[g] = _mm512_shuffle_epi8(_mm512_loadu_si512(w + 64 * g), _mm512_and_si512(codes, _mm512_set1_epi8(15)));
    }
    UNROLL_FOR (int i = 0; i < 2; i++)
        pairs[i] = quarter % 2 ? _mm512_unpackhi_epi32(v[i], v[i + 2]) : _mm512_unpacklo_epi32(v[i], v[i + 2]);
    put_bytes(out, _mm512_unpacklo_epi32(pairs[0], pairs[1]), scale, _mm512_setzero_ps());
    put_bytes(out + 128, _mm512_unpackhi_epi32(pairs[0], pairs[1]), scale, _mm512_setzero_ps());
}

/* A quad of PAIRS, plus their offset. */
INLINE __m512i pair_quad(const uint8_t *q, int quad)
{
    const __m512i places = _mm512_srli_epi32(_mm512_loadu_si512(q), (unsigned)(4 * quad));
    const __m512i begin = _mm512_add_epi8(_mm512_loadu_si512(WORDS_BEGIN), _mm512_set1_epi8((char)(quad % 2 * 2)));
    const __m512i which = _mm512_permutexvar_epi32(places, _mm512_loadu_si512(PAIR_PLACES));
    const __m512i codes = _mm512_srli_epi16(_mm512_loadu_si512(q + 64 + quad / 4 * 64), (unsigned)(quad % 4 / 2 * 4));
    const __m512i found =
        _mm512_shuffle_epi8(_mm512_and_si512(codes, _mm512_set1_epi8(15)), _mm512_add_epi8(which, begin));
    return _mm512_xor_si512(found, _mm512_set1_epi8(8));
}

/* A quarter of a block: two quads, four rows. */
INLINE void expand_kind(const struct sis_kind kind, const uint8_t *w, size_t block, int quarter, uint8_t *out)
{
    const struct block_at at = block_at(kind, w, block);
    const int bits = (int)kind.bits, groups = n_groups(kind), group = groups == 1 ? 0 : quarter / 2;
    const uint8_t *s = at.scales + (size_t)group * scale_bytes(kind), *q = at.codes;
    const __m512 scale = numbers(scales_from(kind, s, at.unit, 0));
    __m512 offset = _mm512_setzero_ps();
    if (has_minima(kind))
        offset = _mm512_sub_ps(offset, numbers(scales_from(kind, s + minima_behind(kind), at.unit + 32, 1)));
    if (code_offset(kind)) offset = _mm512_mul_ps(scale, _mm512_set1_ps((float)-code_offset(kind)));
    const char *ahead = (const char *)share_of_codes(kind, at) + AHEAD;
    _mm_prefetch(ahead + (unsigned)quarter * codes_bytes(kind) / 4, _MM_HINT_T0);
    if (bits == 8) {
        _mm_prefetch((const char *)q + AHEAD + quarter * 128 + 64, _MM_HINT_T0);
        UNROLL_FOR (int i = 0; i < 2; i++)
            put_bytes(out + i * 128, _mm512_loadu_si512(q + quarter * 128 + i * 64), scale, offset);
        return;
    }
    if (kind.codes == SIS_ROW_TABLE) {
        put_rows(out, w, q, quarter, scale);
        return;
    }
    if (kind.codes == SIS_PAIRS) {
        UNROLL_FOR (int i = 0; i < 2; i++) put_codes(out + i * 128, pair_quad(q, 2 * quarter + i), scale, offset);
        return;
    }
    if (kind.codes == SIS_TERNARY) {
        UNROLL_FOR (int i = 0; i < 2; i++)
            put_codes(out + i * 128, ternary_quad(q, at.number, 2 * quarter + i), scale, offset);
        return;
    }
    __m512i v[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    if (bits >= 4) {
        v[0] = _mm512_loadu_si512(q + quarter * 64);
        v[1] = _mm512_srli_epi16(v[0], 4);
    } else if (bits > 1) {
        v[0] = _mm512_srli_epi16(_mm512_loadu_si512(q + quarter / 2 * 64), (unsigned)(quarter % 2 * 4));
        v[1] = _mm512_srli_epi16(v[0], 2);
    }
    if (bits == 4) {
        const __m512 values = kind.codes == SIS_TABLE
                                  ? from_bytes(sixteen(w), 1)
                                  : _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        put_nibbles(out, v[0], values, scale, offset);
        return;
    }
    const __m512i mask = _mm512_set1_epi8(bits >= 4 ? 15 : 3);
    UNROLL_FOR (int i = 0; i < 2; i++) v[i] = _mm512_and_si512(v[i], mask);
    if (bits == 6) {
        const __m512i up =
            _mm512_srli_epi16(_mm512_loadu_si512(q + 256 + quarter / 2 * 64), (unsigned)(quarter % 2 * 4));
        const __m512i high = _mm512_set1_epi8(0x30);
        v[0] = _mm512_or_si512(v[0], _mm512_and_si512(_mm512_slli_epi16(up, 4), high));
        v[1] = _mm512_or_si512(v[1], _mm512_and_si512(_mm512_slli_epi16(up, 2), high));
    }
    if (bits % 2) {
        const __m512i up =
            _mm512_srli_epi16(_mm512_loadu_si512(q + (bits == 1 ? 0 : (bits - 1) * 64)), (unsigned)(quarter * 2));
        const __m512i one = _mm512_set1_epi8(1), two = _mm512_set1_epi8(2);
        const unsigned shift = (unsigned)bits - 1;
        v[0] = _mm512_or_si512(v[0], _mm512_slli_epi16(_mm512_and_si512(up, one), shift));
        v[1] = _mm512_or_si512(v[1], _mm512_srli_epi16(_mm512_slli_epi16(_mm512_and_si512(up, two), shift), 1));
    }
    if (kind.codes == SIS_TABLE)
        UNROLL_FOR (int i = 0; i < 2; i++) put_bytes(out + i * 128, entries(kind, w, v[i]), scale, offset);
    else
        UNROLL_FOR (int i = 0; i < 2; i++) put_codes(out + i * 128, v[i], scale, offset);
}

/* Columns past the last are zeros, and what would lie there is not read. */
INLINE void expand_floats(const uint32_t format, const uint8_t *w, size_t block, int quarter, size_t k, uint8_t *out)
{
    UNROLL_FOR (size_t j = 0; j < 4; j++) {
        const size_t at = block * STEP + (size_t)quarter * 8 + j * 2;
        const __mmask16 even = at < k ? 0xffff : 0, odd = at + 1 < k ? 0xffff : 0;
        const uint8_t *p = w + at * TILE * (format == SIS_F16 || format == SIS_BF16 ? 2 : 4);
        if (format == SIS_BF16) {
            const __m512i pair = _mm512_maskz_loadu_epi16((__mmask32)odd << 16 | even, p);
            _mm512_store_si512(out + j * 64, side_by_side(pair));
        } else if (format == SIS_F16)
            put_split(out + j * 64, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(even, p)),
                      _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(odd, p + 32)));
        else put_split(out + j * 64, _mm512_maskz_loadu_ps(even, p), _mm512_maskz_loadu_ps(odd, p + 64));
    }
}

/* The weights of a panel on their way to bfloat16, a quarter of a tile at a time. */
struct expansion {
    const uint8_t *w[2];
    size_t k, first; /* columns of the weights; the step of the matrix with which the panel begins */
    uint8_t *out;
    uint32_t done, n;
};

INLINE void expand(const uint32_t format, struct expansion *e)
{
    const uint32_t piece = e->done++, tile = piece / 4 % 2, step = piece / PIECES;
    const int quarter = (int)(piece % 4);
    const size_t block = e->first + step;
    const uint8_t *w = e->w[tile];
    uint8_t *out = e->out + step * w_step(format) + tile * ONE + quarter * 256;
    switch (format) {
#define EXPAND(NAME, FORMAT, BITS, CODES, GROUP, SCALES)                                                               \
    case FORMAT: expand_kind((struct sis_kind){BITS, CODES, GROUP, SCALES}, w, block, quarter, out); break;
        SIS_KINDS(EXPAND)
    default: expand_floats(format, w, block, quarter, e->k, out);
    }
}

INLINE void expand_some(const uint32_t format, struct expansion *e, uint32_t pieces)
{
    for (uint32_t i = 0; i < pieces && e->done < e->n; i++) expand(format, e);
}

/* Sums in tiles 0 to 3: rows 0 to 15 with either tile of weights, then rows 16 to 31. After each product, `pieces` of the next
 * panel: all at once would fill up what the processor looks ahead. */
INLINE void products(const uint32_t format, const int tall, const uint8_t *x, const uint8_t *w, struct expansion *next,
                     uint32_t pieces)
{
    tile_load(4, x, 64);
    tile_load(6, w, 64);
    tile_multiply(0, 4, 6);
    expand_some(format, next, pieces);
    tile_load(7, w + ONE, 64);
    tile_multiply(1, 4, 7);
    expand_some(format, next, pieces);
    if (!tall) return;
    tile_load(5, x + ONE, 64);
    tile_multiply(2, 5, 6);
    expand_some(format, next, pieces);
    tile_multiply(3, 5, 7);
    expand_some(format, next, pieces);
}

INLINE void start_sums(const int tall, int fresh, const uint8_t *sums)
{
    if (fresh) {
        tile_zero(0);
        tile_zero(1);
        tile_zero(2);
        tile_zero(3);
        return;
    }
    tile_load(0, sums, 64);
    tile_load(1, sums + ONE, 64);
    if (!tall) return;
    tile_load(2, sums + 2 * ONE, 64);
    tile_load(3, sums + 3 * ONE, 64);
}

INLINE void keep_sums(const int tall, uint8_t *sums)
{
    tile_store(0, sums, 64);
    tile_store(1, sums + ONE, 64);
    if (!tall) return;
    tile_store(2, sums + 2 * ONE, 64);
    tile_store(3, sums + 3 * ONE, 64);
}

/* sums += 32 (tall) or 16 rows of activations times a panel; after each step, `rate` pieces of the next panel and some
 * lines of what the unit's thread reads next. */
INLINE void multiply_panel(const uint32_t format, const int tall, const uint8_t *x, const uint8_t *w, uint32_t steps,
                           uint8_t *sums, int fresh, struct expansion *next, uint32_t rate, struct span *ahead)
{
    const size_t x_bytes_a_step = x_step(has_floats(format) ? SIS_FLOAT : SIS_Q8);
    const uint32_t n_products = tall ? 4 : 2, pieces = rate / n_products;
    start_sums(tall, fresh, sums);
    for (uint32_t s = 0; s < steps; s++, x += x_bytes_a_step, w += w_step(format)) {
        products(format, tall, x, w, next, pieces);
        if (has_floats(format)) products(format, tall, x + 2 * ONE, w, next, 0);
        if (is_split(format)) products(format, tall, x, w + 2 * ONE, next, 0);
        expand_some(format, next, rate - pieces * n_products);
        sis_ask(ahead, LINES);
    }
    keep_sums(tall, sums);
}

/* The sums of up to 32 rows, from row `row` on, with the 32 rows of weights from `column` on. */
static void write_sums(const struct many *job, const uint8_t *sums, uint32_t row, uint32_t n_rows, size_t column)
{
    const size_t n = job->n - column < SIDE ? job->n - column : SIDE;
    const __mmask16 masks[2] = {(__mmask16)(n < TILE ? (1u << n) - 1 : 0xffff),
                                (__mmask16)(n > TILE ? (1u << (n - TILE)) - 1 : 0)};
    __m512 bias[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int t = 0; job->bias && t < 2; t++) bias[t] = _mm512_maskz_loadu_ps(masks[t], job->bias + column + t * TILE);
    for (uint32_t r = 0; r < n_rows; r++)
        UNROLL_FOR (int t = 0; t < 2; t++) {
            float *y = job->y + (size_t)(row + r) * job->stride + column + t * TILE;
            __m512 v = _mm512_load_ps(sums + (r / TILE * 2 + (uint32_t)t) * ONE + r % TILE * 64);
            v = _mm512_add_ps(v, bias[t]);
            if (job->add) v = _mm512_add_ps(_mm512_maskz_loadu_ps(masks[t], y), v);
            _mm512_mask_storeu_ps(y, masks[t], v);
        }
}

/* A job's panels in the order in which they are used: along a piece of k, then across the rows of weights, then along
 * the next piece. Activations of a piece stay in the second-level cache, and so do all sums. */
struct panels {
    const struct many *job;
    size_t steps, panel_steps, piece_steps;
};

struct panel {
    size_t piece, step, pair; /* the first step of the piece and of the panel; which two tiles */
};

static struct panel panel_after(const struct panels *p, struct panel at)
{
    const size_t left = p->steps - at.piece, end = at.piece + (left < p->piece_steps ? left : p->piece_steps);
    at.step += p->panel_steps;
    if (at.step < end) return at;
    at.step = at.piece;
    if (++at.pair * SIDE < p->job->n) return at;
    return (struct panel){end, end, 0};
}

/* Panel number i. */
static struct expansion expansion_of(const struct panels *p, struct panel at, uint32_t i)
{
    if (at.step == p->steps) return (struct expansion){.n = 0};
    const struct many *job = p->job;
    const size_t left = p->steps - at.step, steps = left < p->panel_steps ? left : p->panel_steps, tile = at.pair * 2;
    const size_t other = (tile + 1) * TILE < job->n ? tile + 1 : tile; /* what a lone last tile gives is not stored */
    return (struct expansion){
        .w = {job->tiles + tile * job->tile_bytes, job->tiles + other * job->tile_bytes},
        .k = job->k,
        .first = at.step,
        .out = job->scratch + i % 2 * PANEL_BYTES,
        .n = (uint32_t)steps * PIECES,
    };
}

/* Whole panels, one at least. */
static size_t piece_steps(uint32_t spans, size_t step_bytes, size_t panel_steps)
{
    const size_t fit = PIECE_BYTES / (spans * step_bytes) / panel_steps;
    return (fit ? fit : 1) * panel_steps;
}

INLINE void multiply_job(const uint32_t format, const struct many *job)
{
    const size_t step_bytes = x_step(has_floats(format) ? SIS_FLOAT : SIS_Q8);
    const uint32_t spans = (job->rows + SIDE - 1) / SIDE;
    const size_t panel_bytes = spans <= FEW_SPANS ? FEW_PANEL_BYTES : PANEL_BYTES;
    struct panels p = {.job = job, .steps = steps_of(job->k), .panel_steps = panel_bytes / w_step(format)};
    p.piece_steps = piece_steps(spans, step_bytes, p.panel_steps);
    const uint8_t *x = (const uint8_t *)job->x + job->first / SIDE * p.steps * step_bytes;
    struct span ahead = job->ahead;
    struct panel at = {0, 0, 0}, after;
    struct expansion next = expansion_of(&p, at, 0);
    while (next.done < next.n) expand(format, &next);
    for (uint32_t i = 1; at.step < p.steps; i++, at = after) {
        const struct expansion now = next;
        const uint32_t steps = now.n / PIECES;
        after = panel_after(&p, at);
        next = expansion_of(&p, after, i);
        const uint32_t rate = (next.n + spans * steps - 1) / (spans * steps);
        for (uint32_t s = 0; s < spans; s++) {
            const uint8_t *from = x + (s * p.steps + at.step) * step_bytes;
            const uint32_t left = job->rows - s * SIDE, rows = left < SIDE ? left : SIDE;
            uint8_t *sums = job->scratch + 2 * PANEL_BYTES + (at.pair * spans + s) * 4 * ONE;
            if (rows > TILE) multiply_panel(format, 1, from, now.out, steps, sums, !at.step, &next, rate, &ahead);
            else multiply_panel(format, 0, from, now.out, steps, sums, !at.step, &next, rate, &ahead);
            if (at.step + steps == p.steps) write_sums(job, sums, job->first + s * SIDE, rows, at.pair * SIDE);
        }
        while (next.done < next.n) expand(format, &next);
    }
}

#define JOB(NAME, FORMAT)                                                                                              \
    static __attribute__((noinline)) void NAME(const struct many *job) { multiply_job(FORMAT, job); }

JOB(multiply_f32, SIS_F32)
JOB(multiply_f16, SIS_F16)
JOB(multiply_bf16, SIS_BF16)
#define MULTIPLY_KIND(FORMAT, KIND, job) multiply_job(FORMAT, job)
#include "kind_jobs.inc"

/* Tiles belong to a thread. They are given back after each unit, so that the system need not save them. */
static void multiply(const struct many *job)
{
    static void (*const JOBS[])(const struct many *) = {
        KIND_JOBS[SIS_F32] = multiply_f32,
        [SIS_F16] = multiply_f16,
        [SIS_BF16] = multiply_bf16,
        [SIS_DECODED] = multiply_f32,
    };
    struct tile_shapes shapes = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        shapes.row_bytes[i] = 64;
        shapes.rows[i] = 16;
    }
    tile_shape(&shapes);
    JOBS[job->format](job);
    tile_release();
}

#define MANY(...)                                                                                                      \
    {__VA_ARGS__,                                                                                                      \
     .units = UNITS,                                                                                                   \
     .x_bytes = x_bytes,                                                                                               \
     .scratch_bytes = scratch_bytes,                                                                                   \
     .unit_rows = unit_rows,                                                                                           \
     .prepare = prepare,                                                                                               \
     .multiply = multiply}

extern const struct many_rows sis_many_amx, sis_few_amx;
static const struct many_rows floats = MANY(.from = FROM_FLOATS, .forms = SIS_FLOAT, .fewer = &sis_few_amx);
extern const struct many_pairs sis_pairs_amx;
const struct many_rows sis_many_amx =
    MANY(.from = FROM, .forms = SIS_Q8, .fewer = &floats, .attention = &sis_pairs_amx);
