/* Vectors of VL floats in the compiler's own vector extension, for loops that every instruction set compiles itself.
 * The including file defines VL and, where it has better instructions, the primitives marked below. */
#ifndef SIS_VEC_H
#define SIS_VEC_H

#include "kernels.h"
#include <string.h>

#if defined(__clang__)
#define UNROLL_FOR(...) _Pragma("unroll") for (__VA_ARGS__)
#else
#define UNROLL_FOR(...) _Pragma("GCC unroll 16") for (__VA_ARGS__)
#endif
#define INLINE static inline __attribute__((always_inline))
#define NV (TILE / VL)

enum { ROWS_F32, ROWS_F16, ROWS_BF16 }; /* kinds of float weights */

/* Bytes ahead of a stream from memory that are asked for; a set that defines FAR as 0 leaves it to the processor. What comes
 * soon is asked for in the first-level cache, and what comes later in the second-level: so memory is kept busy by rows that
 * take about as long as it does, and one row is read a fifteenth faster, eight rows of Q8_0 a seventh, on a Sapphire Rapids.
 * Where few rows share the stream the distance is the machine's own. */
#ifdef FAR
#define LEVELS 0
#else
#define LEVELS 2
#define FAR sis_far
#endif
#define FAR_SHARED 2048 /* by so many rows: */
#define SHARED 4

typedef float vf __attribute__((vector_size(4 * VL)));
typedef int32_t vi __attribute__((vector_size(4 * VL)));
typedef float vf_at __attribute__((vector_size(4 * VL), aligned(1), may_alias));

struct ahead {
    int levels;
    size_t first, second;
};
#define NOTHING_AHEAD ((struct ahead){0, 0, 0})
INLINE struct ahead ahead_of(int rows)
{
    if (!LEVELS) return NOTHING_AHEAD;
    return (struct ahead){2, rows < SHARED ? FAR : FAR_SHARED, 2 * FAR};
}
INLINE void ask(const void *p, struct ahead ahead)
{
    if (ahead.levels > 0) __builtin_prefetch((const char *)p + ahead.first);
    if (ahead.levels > 1) __builtin_prefetch((const char *)p + ahead.second, 0, 2);
}
/* Between what two streams ask for: compilers would put all of it first, and a Sapphire Rapids then takes 7 % longer. */
#define KEEP_ORDER __asm__ volatile("" ::: "memory")

INLINE vf v_load(const void *p) { return *(const vf_at *)p; }
INLINE void v_store(void *p, vf v) { *(vf_at *)p = v; }
INLINE vf v_set(float x) { return x - (vf){0}; }
INLINE vi v_bits(vf x)
{
    vi b;
    memcpy(&b, &x, sizeof b);
    return b;
}
INLINE vf v_from_bits(vi b)
{
    vf x;
    memcpy(&x, &b, sizeof x);
    return x;
}
INLINE vf v_select(vi mask, vf a, vf b) { return v_from_bits((v_bits(a) & mask) | (v_bits(b) & ~mask)); }
INLINE float v_sum(vf v)
{
    float s[VL];
    memcpy(s, &v, sizeof s);
    for (int step = VL / 2; step; step /= 2)
        for (int i = 0; i < step; i++) s[i] += s[i + step];
    return s[0];
}

#ifndef V_HAS_FMA
INLINE vf v_fma(vf a, vf b, vf c) { return a * b + c; }
#endif
#ifndef V_HAS_MAX /* the second operand when one of them is NaN */
INLINE vf v_max(vf a, vf b) { return v_select(a > b, a, b); }
INLINE vf v_min(vf a, vf b) { return v_select(a < b, a, b); }
INLINE vf v_abs(vf a) { return v_from_bits(v_bits(a) & 0x7fffffff); }
#endif

INLINE float v_top(vf v)
{
    float s[VL];
    memcpy(s, &v, sizeof s);
    for (int step = VL / 2; step; step /= 2)
        for (int i = 0; i < step; i++) s[i] = s[i] > s[i + step] ? s[i] : s[i + step];
    return s[0];
}

#if defined(__F16C__) || defined(__aarch64__) /* an instruction each way */
static inline float half_to_float(uint16_t h)
{
    _Float16 half;
    memcpy(&half, &h, sizeof h);
    return (float)half;
}

static inline uint16_t float_to_half(float f)
{
    const _Float16 half = (_Float16)f;
    uint16_t h;
    memcpy(&h, &half, sizeof h);
    return h;
}
#else
static inline float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 0x3ff, bits;
    if (e == 31) bits = sign | 0x7f800000 | m << 13;
    else if (e) bits = sign | (e + 112) << 23 | m << 13;
    else {
        float f = (float)m * 0x1p-24f;
        memcpy(&bits, &f, 4);
        bits |= sign;
    }
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static inline uint16_t float_to_half(float f)
{
    uint32_t b;
    memcpy(&b, &f, 4);
    uint32_t sign = b >> 16 & 0x8000, a = b & 0x7fffffff;
    if (a > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
    if (a >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* rounds to 65536 or more */
    if (a < 0x38800000) { /* below the smallest normal: adding 0.5 rounds to a multiple of 2^-24 */
        float t;
        memcpy(&t, &a, 4);
        t += 0.5f;
        memcpy(&a, &t, 4);
        return (uint16_t)(sign | (a - 0x3f000000));
    }
    return (uint16_t)(sign | ((a - 0x38000000 + 0xfff + (a >> 13 & 1)) >> 13));
}
#endif

static inline uint16_t float_to_bfloat(float f)
{
    uint32_t b;
    memcpy(&b, &f, 4);
    if ((b & 0x7fffffff) > 0x7f800000) return (uint16_t)(b >> 16 | 0x40);
    return (uint16_t)((b + 0x7fff + (b >> 16 & 1)) >> 16);
}

#ifndef V_HAS_HALF
INLINE vf v_load_half(const uint16_t *p)
{
    float t[VL];
    for (int i = 0; i < VL; i++) t[i] = half_to_float(p[i]);
    return v_load(t);
}
INLINE void v_store_half(uint16_t *p, vf v)
{
    float t[VL];
    v_store(t, v);
    for (int i = 0; i < VL; i++) p[i] = float_to_half(t[i]);
}
INLINE vf v_load_bfloat(const uint16_t *p)
{
    vi b;
    for (int i = 0; i < VL; i++) b[i] = (int32_t)((uint32_t)p[i] << 16);
    return v_from_bits(b);
}
#endif

/* The scale of a block of activations and its inverse, from the largest magnitude; 0 where the inverse overflows. */
INLINE float q8_scale(float most, float *inverse)
{
    float d = most / 127.0f, i = d > 0 ? 1.0f / d : 0;
    if (i > 3e38f) d = i = 0;
    *inverse = i;
    return d;
}

/* Everything of a block but the values themselves, from their sums over either half. */
INLINE void q8_finish(struct q8_block *o, float d, int32_t low, int32_t high)
{
    o->d = d;
    o->minus_ds = -d * (float)(low + high);
    o->minus_8 = -8 * (low + high);
    o->minus_128 = -128 * (low + high);
    o->minus_32[0] = -32 * low;
    o->minus_32[1] = -32 * high;
    o->minus_ds16[0] = -d * (float)low;
    o->minus_ds16[1] = -d * (float)high;
}

/* Where an instruction adds two products of BF16 to each lane, the including file defines V_HAS_DOT, v_dot (acc plus a
 * pair of `w` for each lane times the pair `x`) and v_store_bfloat; without it neither is called. */
#ifdef V_HAS_DOT
#define HAS_DOT 1
#else
#define HAS_DOT 0
INLINE vf v_dot(vf acc, vi w, uint32_t x) { return (void)w, (void)x, acc; }
INLINE void v_store_bfloat(uint16_t *p, vf v) { (void)p, (void)v; }
#endif

/* Where an instruction adds two products of bfloat16 to each lane, a set may define V_HAS_BFLOATS, prepare_bfloats, and tile
 * functions of BF16 weights. */
/* Where an instruction adds products of halves in 32 bits, the including file defines V_HAS_HALVES, prepare_halves and
 * tile_f16: F16 weights are then multiplied with activations in half precision. */

INLINE vf v_load_bytes(const int8_t *p)
{
    typedef int8_t vb __attribute__((vector_size(VL)));
    vb b;
    memcpy(&b, p, sizeof b);
    return __builtin_convertvector(b, vf);
}

/* VL bytes of two codes of four bits each; and what the low codes of such stand for, -8 to 7. */
INLINE vi v_load_codes(const uint8_t *p)
{
    typedef uint8_t vb __attribute__((vector_size(VL)));
    vb b;
    memcpy(&b, p, sizeof b);
    return __builtin_convertvector(b, vi);
}
#ifndef V_HAS_NIBBLES
INLINE vf v_nibbles(vi codes) { return __builtin_convertvector((codes & 15) - 8, vf); }
#endif

/* 2^n p, a NaN where p is one; n are the low bits of t, the sum with a large number that rounded it. */
INLINE vf v_scale(vf p, vf t)
{
    typedef uint32_t vu __attribute__((vector_size(4 * VL)));
    vu bits;
    memcpy(&bits, &t, sizeof bits);
    bits = (bits << 23) + 0x3f800000;
    vf power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

/* e^x to 2 ulp: x = n ln2 + r with n from the rounding of a large sum, e^r by its Taylor polynomial. Below -87 it is 0. */
INLINE vf v_exp(vf x)
{
    const vf magic = v_set(12582912.0f); /* 1.5 * 2^23: the sum's low bits hold the integer */
    vi tiny = x < v_set(-87.0f);
    vf y = v_max(v_set(-87.0f), v_min(v_set(88.0f), x));
    vf t = v_fma(y, v_set(1.44269504f), magic);
    vf n = t - magic;
    vf r = v_fma(n, v_set(-0.693145752f), y);
    r = v_fma(n, v_set(-1.42860677e-6f), r);
    vf p = v_set(1.0f / 720);
    p = v_fma(p, r, v_set(1.0f / 120));
    p = v_fma(p, r, v_set(1.0f / 24));
    p = v_fma(p, r, v_set(1.0f / 6));
    p = v_fma(p, r, v_set(0.5f));
    p = v_fma(p, r, v_set(1.0f));
    p = v_fma(p, r, v_set(1.0f));
    return v_select(tiny, (vf){0}, v_scale(p, t));
}

/* 2^x to 2 ulp for x <= 0, exactly 1 at 0: as above, with the minimax polynomial of degree 5. Below -126 it is 0. */
INLINE vf v_exp2(vf x)
{
    const vf magic = v_set(12582912.0f);
    vi tiny = x < v_set(-126.0f);
    vf y = v_max(v_set(-126.0f), x);
    vf t = y + magic, r = y - (t - magic), p = v_set(0.00132647273f);
    p = v_fma(p, r, v_set(0.00967151299f));
    p = v_fma(p, r, v_set(0.0555073358f));
    p = v_fma(p, r, v_set(0.240222424f));
    p = v_fma(p, r, v_set(0.693147004f));
    p = v_fma(p, r, v_set(1.0f));
    return v_select(tiny, (vf){0}, v_scale(p, t));
}

INLINE vf v_tanh(vf x) { return 1.0f - 2.0f / (v_exp(2.0f * x) + 1.0f); }

#endif
