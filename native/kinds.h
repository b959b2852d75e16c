/* Tiles of packed weights: what those of each format hold, and where it lies. program.h says what the words mean.
 *
 * A tile is sixteen rows, in one stream in the order in which it is read: so what is fetched ahead is what comes next.
 * With TABLE it begins with the table, filled up to 64 bytes. Then units follow, of two blocks of 32 columns or, where more
 * than 32 share a scale, of the blocks of two groups; with BYTE, SIX, NIBBLE and SUPER, and of TERNARY, of eight.
 * The last may hold fewer, and so may the last group of more than 32 columns. A unit is
 *
 *   256 columns    16 halves: super-scales; 16 more: super-minima, or nothing that is read
 *   each block     for each group 16 scales; then for each group 16 minima (UNSIGNED; NIBBLE: as the upper half of scales)
 *   each block     its codes
 *
 * where blocks that share scales have them once. In a unit that holds fewer blocks codes begin where they do in all.
 *
 * Codes are laid out in vectors of 64 bytes, in which four bytes belong to each of the sixteen rows, one after the other:
 * a quad of columns, 4 i + y in byte y. Those of a block of 32 columns are eight quads:
 *
 *   8 bits         a vector for each quad; as signed, of UNSIGNED too
 *   4, 5, 6 bits   four vectors of the lower four bits: quad 2 j low, quad 2 j + 1 high
 *   2, 3 bits      two vectors of the lower two bits: quad 4 j + p in bits 2 p
 *   5, 3, 1 bits   then a vector of the upper bit: quad i in bit i
 *   6 bits         then two vectors of the upper two bits: quad 4 j + p in bits 2 p
 *
 * S3_16 is Q3_K's with any scales of 8 bits: those of Q3_K have six, so that weights fit bytes.
 *
 * SIGNED codes of less than 8 bits lie there plus 2^(bits-1), so that they are none below zero.
 *
 * With ROW_TABLE sixteen bytes belong to each row, one after the other, as row_at says: its table, in four vectors with which
 * the tile begins; and in the four vectors of a block its codes, of the first sixteen columns low, of the others high.
 *
 * With TERNARY the blocks of a unit share thirteen vectors, in the order of GGML's TQ1_0. A byte is a signed fraction of 256,
 * five digits of base 3 that are -1, 0 and 1: three times as much rounds to 256 times the first digit, and what is left has the
 * others. Digit d of vector i is, as ternary_vector and ternary_digit say, of
 *
 *   vectors 0 to 7     quad i of block d
 *   vectors 8 to 11    quads 4 d + i - 8 from block 5 on
 *   vector 12          quad 4 + d of block 7, of four digits
 *
 * With PAIRS a block begins with a vector of the places of its codes: in the word of a row four bits for each quad, a number
 * of PAIR_PLACES. Two vectors follow: of each row of quads 4 j to 4 j + 3 the two codes of either of the first two low, of
 * the others high. */
#ifndef SIS_KINDS_H
#define SIS_KINDS_H

#include "kernels.h"

/* KIND(name, FORMAT, bits, codes, group, scales) for each that has tiles of its own; first those of which a set may have
 * kernels written out. */
#define SIS_KINDS(KIND) SIS_FIRST_KINDS(KIND) SIS_OTHER_KINDS(KIND)

#define SIS_FIRST_KINDS(KIND)                                                                                          \
    KIND(q8_0, SIS_Q8_0, 8, SIS_SIGNED, 32, SIS_HALF)                                                                  \
    KIND(q4_0, SIS_Q4_0, 4, SIS_SIGNED, 32, SIS_HALF)                                                                  \
    KIND(q4_k, SIS_Q4_K, 4, SIS_UNSIGNED, 32, SIS_BYTE)                                                                \
    KIND(q6_k, SIS_Q6_K, 6, SIS_SIGNED, 16, SIS_BYTE)

#define SIS_OTHER_KINDS(KIND)                                                                                          \
    KIND(q4_1, SIS_Q4_1, 4, SIS_UNSIGNED, 32, SIS_HALF)                                                                \
    KIND(q5_0, SIS_Q5_0, 5, SIS_SIGNED, 32, SIS_HALF)                                                                  \
    KIND(q5_1, SIS_Q5_1, 5, SIS_UNSIGNED, 32, SIS_HALF)                                                                \
    KIND(q5_k, SIS_Q5_K, 5, SIS_UNSIGNED, 32, SIS_BYTE)                                                                \
    KIND(q3_k, SIS_Q3_K, 3, SIS_SIGNED, 16, SIS_SIX)                                                                   \
    KIND(q2_k, SIS_Q2_K, 2, SIS_UNSIGNED, 16, SIS_NIBBLE)                                                              \
    KIND(iq4_nl, SIS_IQ4_NL, 4, SIS_TABLE, 32, SIS_HALF)                                                               \
    KIND(iq4_xs, SIS_IQ4_XS, 4, SIS_TABLE, 32, SIS_BYTE)                                                               \
    KIND(mxfp4, SIS_MXFP4, 4, SIS_TABLE, 32, SIS_BFLOAT)                                                               \
    KIND(nvfp4, SIS_NVFP4, 4, SIS_TABLE, 16, SIS_BFLOAT)                                                               \
    KIND(tq2_0, SIS_TQ2_0, 2, SIS_TABLE, 32, SIS_SUPER)                                                                \
    KIND(tq1_0, SIS_TQ1_0, 2, SIS_TERNARY, 32, SIS_SUPER)                                                              \
    KIND(t1, SIS_T1, 1, SIS_TABLE, 32, SIS_HALF)                                                                       \
    KIND(t2, SIS_T2, 2, SIS_TABLE, 32, SIS_HALF)                                                                       \
    KIND(u2, SIS_U2, 2, SIS_UNSIGNED, 32, SIS_HALF)                                                                    \
    KIND(t3, SIS_T3, 3, SIS_TABLE, 32, SIS_HALF)                                                                       \
    KIND(u3, SIS_U3, 3, SIS_UNSIGNED, 32, SIS_HALF)                                                                    \
    KIND(t6, SIS_T6, 6, SIS_TABLE, 32, SIS_HALF)                                                                       \
    KIND(t4_64, SIS_T4_64, 4, SIS_TABLE, 64, SIS_HALF)                                                                 \
    KIND(t4_128, SIS_T4_128, 4, SIS_TABLE, 128, SIS_HALF)                                                              \
    KIND(u4_64, SIS_U4_64, 4, SIS_UNSIGNED, 64, SIS_HALF)                                                              \
    KIND(u4_128, SIS_U4_128, 4, SIS_UNSIGNED, 128, SIS_HALF)                                                           \
    KIND(u3_64, SIS_U3_64, 3, SIS_UNSIGNED, 64, SIS_HALF)                                                              \
    KIND(t2_256, SIS_T2_256, 2, SIS_TABLE, 256, SIS_HALF)                                                              \
    KIND(r4_128, SIS_R4_128, 4, SIS_ROW_TABLE, 128, SIS_HALF)                                                          \
    KIND(p4, SIS_P4, 3, SIS_PAIRS, 32, SIS_HALF)                                                                       \
    KIND(s3_16, SIS_S3_16, 3, SIS_SIGNED, 16, SIS_BYTE)                                                                \
    KIND(t1_64, SIS_T1_64, 1, SIS_TABLE, 64, SIS_HALF)                                                                 \
    KIND(t1_128, SIS_T1_128, 1, SIS_TABLE, 128, SIS_HALF)                                                              \
    KIND(t2_64, SIS_T2_64, 2, SIS_TABLE, 64, SIS_HALF)                                                                 \
    KIND(t2_128, SIS_T2_128, 2, SIS_TABLE, 128, SIS_HALF)                                                              \
    KIND(t3_16, SIS_T3_16, 3, SIS_TABLE, 16, SIS_HALF)                                                                 \
    KIND(t4_16, SIS_T4_16, 4, SIS_TABLE, 16, SIS_HALF)                                                                 \
    KIND(u2_64, SIS_U2_64, 2, SIS_UNSIGNED, 64, SIS_HALF)                                                              \
    KIND(u6, SIS_U6, 6, SIS_UNSIGNED, 32, SIS_HALF)                                                                    \
    KIND(u8, SIS_U8, 8, SIS_UNSIGNED, 32, SIS_HALF)                                                                    \
    KIND(d_64, SIS_D_64, 2, SIS_TERNARY, 64, SIS_HALF)

/* PACKED(name, FORMAT, columns of a block, its bytes) for each whose raw rows are known */
#define SIS_PACKED(PACKED)                                                                                             \
    PACKED(q8_0, SIS_Q8_0, 32, 34)                                                                                     \
    PACKED(q4_0, SIS_Q4_0, 32, 18)                                                                                     \
    PACKED(q4_k, SIS_Q4_K, 256, 144)                                                                                   \
    PACKED(q6_k, SIS_Q6_K, 256, 210)                                                                                   \
    PACKED(q4_1, SIS_Q4_1, 32, 20)                                                                                     \
    PACKED(q5_0, SIS_Q5_0, 32, 22)                                                                                     \
    PACKED(q5_1, SIS_Q5_1, 32, 24)                                                                                     \
    PACKED(q5_k, SIS_Q5_K, 256, 176)                                                                                   \
    PACKED(q3_k, SIS_Q3_K, 256, 110)                                                                                   \
    PACKED(q2_k, SIS_Q2_K, 256, 84)                                                                                    \
    PACKED(iq4_nl, SIS_IQ4_NL, 32, 18)                                                                                 \
    PACKED(iq4_xs, SIS_IQ4_XS, 256, 136)                                                                               \
    PACKED(mxfp4, SIS_MXFP4, 32, 17)                                                                                   \
    PACKED(nvfp4, SIS_NVFP4, 64, 36)                                                                                   \
    PACKED(tq2_0, SIS_TQ2_0, 256, 66)                                                                                  \
    PACKED(tq1_0, SIS_TQ1_0, 256, 54)

#define SUPER 256         /* columns of a unit with super-scales */
#define TABLE_BYTES 64    /* what a tile with a table begins with: as many entries */
#define HALVES (2 * TILE) /* bytes of a half or a bfloat for each row */
#define ROW_ENTRIES 16    /* of a row's table */

static inline int has_supers(struct sis_kind kind) { return kind.scales >= SIS_BYTE; }
static inline int has_minima(struct sis_kind kind) { return kind.codes == SIS_UNSIGNED; }
static inline int has_table(struct sis_kind kind) { return kind.codes == SIS_TABLE || kind.codes == SIS_ROW_TABLE; }
/* Groups in a block, and the columns of a group there; blocks of a group, where those are more than one. */
static inline int n_groups(struct sis_kind kind) { return kind.group < BLOCK ? BLOCK / (int)kind.group : 1; }
static inline uint32_t group_columns(struct sis_kind kind) { return kind.group < BLOCK ? kind.group : BLOCK; }
static inline size_t group_blocks(struct sis_kind kind) { return kind.group > BLOCK ? kind.group / BLOCK : 1; }
/* Bytes of the scales of a group's sixteen rows, and of scales and minima of a block, or of the blocks that share them. */
static inline size_t scale_bytes(struct sis_kind kind)
{
    return kind.scales == SIS_SUPER ? 0 : has_supers(kind) ? TILE : HALVES;
}
static inline size_t scales_bytes(struct sis_kind kind)
{
    const size_t minima = has_minima(kind) && kind.scales != SIS_NIBBLE;
    return scale_bytes(kind) * (size_t)n_groups(kind) * (1 + minima);
}
#define TERNARY_VECTORS 13
/* Of a block; of TERNARY its share of those of a unit. */
static inline size_t codes_bytes(struct sis_kind kind)
{
    return kind.codes == SIS_TERNARY ? TERNARY_VECTORS * 64 * BLOCK / SUPER : kind.bits * 64;
}
static inline size_t table_bytes(struct sis_kind kind)
{
    return kind.codes == SIS_TABLE ? TABLE_BYTES : kind.codes == SIS_ROW_TABLE ? TILE * ROW_ENTRIES : 0;
}

/* From the scales of a block to its minima. */
static inline size_t minima_behind(struct sis_kind kind)
{
    return kind.scales == SIS_NIBBLE ? 0 : (size_t)n_groups(kind) * scale_bytes(kind);
}
/* Whether weights of groups that are less than a block fit a byte without their super-scales: no more than 15 times 15, or
 * from -124 to 128. */
static inline int fits_bytes(struct sis_kind kind)
{
    const int nibbles = kind.scales == SIS_NIBBLE && kind.codes == SIS_UNSIGNED && kind.bits <= 4;
    const int sixes = kind.scales == SIS_SIX && kind.codes == SIS_SIGNED && kind.bits <= 3;
    return kind.group < BLOCK && (nibbles || sixes);
}
/* Whether sums of a unit are added before super-scales multiply them: for a block of bytes, or of codes, there is nothing else. */
static inline int by_units(struct sis_kind kind) { return kind.scales == SIS_SUPER || fits_bytes(kind); }

/* Where two of four columns may lie, by number: for each column, from the lowest byte on, which of the two it is, or neither. */
static const uint32_t PAIR_PLACES[16] = {0x80800100, 0x80018000, 0x01808000, 0x80010080, 0x01800080, 0x01008080};
static const uint8_t WORDS_BEGIN[64] = {
    0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12, 0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12,
    0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12, 0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12,
};

/* The code of column k of a row, plus its offset, of a block of PAIRS. */
static inline uint8_t pair_code(const uint8_t *codes, uint32_t row, uint32_t k)
{
    const uint32_t quad = k / 4, number = codes[row * 4 + quad / 2] >> quad % 2 * 4 & 7;
    const uint32_t which = PAIR_PLACES[number] >> k % 4 * 8 & 255;
    if (which > 1) return 8;
    return (codes[64 + quad / 4 * 64 + row * 4 + quad % 2 * 2 + which] >> quad % 4 / 2 * 4 & 15) ^ 8;
}

/* Of TERNARY, where quad i of block b of a unit lies: in which vector, as which of its digits. */
static inline int ternary_vector(int b, int i) { return b < 5 ? i : b < 7 || i < 4 ? 8 + i % 4 : 12; }
static inline int ternary_digit(int b, int i) { return b < 5 ? b : b < 7 || i < 4 ? 2 * (b - 5) + i / 4 : i - 4; }

/* What has that digit first, and the code that it is. */
static const uint8_t POWERS_OF_3[8] = {1, 3, 9, 27, 81};
static inline uint8_t first_code(uint8_t fraction) { return (uint8_t)((3 * (int8_t)fraction + 384) >> 8); }
static inline uint8_t code_of_digit(uint8_t fraction, int digit)
{
    return first_code((uint8_t)(fraction * POWERS_OF_3[digit]));
}

/* The code of column k of a row, of block b of a unit. */
static inline uint8_t ternary_code(const uint8_t *codes, int b, uint32_t row, uint32_t k)
{
    const int i = (int)k / 4;
    return code_of_digit(codes[(uint32_t)ternary_vector(b, i) * 64 + row * 4 + k % 4], ternary_digit(b, i));
}

/* Where sixteen bytes of a row lie in four vectors: rows that are neighbours in the same places of all four, so that words of
 * four bytes become quads of columns within lanes of sixteen. */
static inline size_t row_at(uint32_t row) { return row % 4 * 64 + row / 4 * 16; }
/* What is added to a code of less than 8 bits that is SIGNED, of PAIRS, or TERNARY. */
static inline int32_t code_offset(struct sis_kind kind)
{
    if (kind.codes == SIS_PAIRS) return 8;
    if (kind.codes == SIS_TERNARY) return 1;
    return kind.codes == SIS_SIGNED && kind.bits < 8 ? 1 << (kind.bits - 1) : 0;
}
/* Whether units are of 256 columns, and rows of nothing but whole units. */
static inline int has_whole_units(struct sis_kind kind) { return has_supers(kind) || kind.codes == SIS_TERNARY; }
static inline size_t unit_blocks(struct sis_kind kind)
{
    return has_whole_units(kind) ? SUPER / BLOCK : 2 * group_blocks(kind);
}
/* Of a unit the bytes of super-scales, of what lies before its codes, of all. */
static inline size_t unit_head(struct sis_kind kind) { return has_supers(kind) ? 2 * HALVES : 0; }
static inline size_t before_codes(struct sis_kind kind)
{
    return unit_head(kind) + unit_blocks(kind) / group_blocks(kind) * scales_bytes(kind);
}
static inline size_t unit_bytes(struct sis_kind kind)
{
    return before_codes(kind) + unit_blocks(kind) * codes_bytes(kind);
}

/* A block of 32 columns: where its unit begins, its scales and its codes, of TERNARY those of the unit; its number there. */
struct block_at {
    const uint8_t *unit, *scales, *codes;
    int number;
};

/* What to ask for ahead of a block's codes: of TERNARY its share of the unit's. */
static inline const uint8_t *share_of_codes(struct sis_kind kind, struct block_at at)
{
    return at.codes + (kind.codes == SIS_TERNARY ? (size_t)at.number * codes_bytes(kind) : 0);
}

/* Counted from where units begin. */
static inline struct block_at block_in_units(struct sis_kind kind, const uint8_t *units, size_t block)
{
    const size_t n = unit_blocks(kind), i = block % n;
    const uint8_t *unit = units + block / n * unit_bytes(kind);
    return (struct block_at){unit, unit + unit_head(kind) + i / group_blocks(kind) * scales_bytes(kind),
                             unit + before_codes(kind) + (kind.codes == SIS_TERNARY ? 0 : i * codes_bytes(kind)),
                             (int)i};
}

static inline struct block_at block_at(struct sis_kind kind, const uint8_t *tile, size_t block)
{
    return block_in_units(kind, tile + table_bytes(kind), block);
}

/* The kind of a format's tiles; without bits where it has none. */
static inline struct sis_kind kind_of(uint32_t format)
{
    switch (format) {
#define KIND(NAME, FORMAT, BITS, CODES, GROUP, SCALES)                                                                 \
    case FORMAT: return (struct sis_kind){BITS, CODES, GROUP, SCALES};
        SIS_KINDS(KIND)
#undef KIND
    default: return (struct sis_kind){0, 0, 0, 0};
    }
}

#endif
