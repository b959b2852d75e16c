/* What the Python side of sis-core and its libraries of kernels say to each other. Private: Python and C of one release
 * belong together, which SIS_PROGRAM and the sizes of the structures make sure of. Others need abi.h only.
 *
 * Every structure here has natural alignment and only types of fixed size, so that Python can mirror it; a test
 * compares the two. Whoever passes an address keeps what lies there alive. No function checks its arguments, but for the
 * size of a workspace: Python does, before it gives an address away, so that nothing here can fail half way. */
#ifndef SIS_PROGRAM_H
#define SIS_PROGRAM_H

#include <sis/abi.h>

#define SIS_PROGRAM 20

#if defined(_WIN32)
#define SIS_EXPORT __declspec(dllexport)
#else
#define SIS_EXPORT __attribute__((visibility("default")))
#endif

/* Formats that the kernels know. The numbers are ours, not GGUF's. From Q8_0 to TQ1_0 each stands for two things: how GGUF
 * lays out its rows, which matters for raw rows alone, and what its tiles hold, which `sis_kind` says: a format of somebody
 * else's may be packed into the tiles of whichever holds the same. Those after them are tiles alone, of bits of codes in a
 * table (T), in one of each row (R), with a minimum (U), two of four columns (P) or digits of base 3 (D), some with scales for
 * other numbers of columns than 32: no type of GGUF's is such, and there are no raw rows of them. */
enum sis_format {
    SIS_F32 = 0,
    SIS_F16 = 1,
    SIS_BF16 = 2,
    SIS_Q8_0 = 3,
    SIS_Q4_0 = 4,
    SIS_Q4_K = 5,
    SIS_Q6_K = 6,
    SIS_Q4_1 = 7,
    SIS_Q5_0 = 8,
    SIS_Q5_1 = 9,
    SIS_Q5_K = 10,
    SIS_Q3_K = 11,
    SIS_Q2_K = 12,
    SIS_IQ4_NL = 13,
    SIS_IQ4_XS = 14,
    SIS_MXFP4 = 15,
    SIS_NVFP4 = 16,
    SIS_TQ2_0 = 17,
    SIS_TQ1_0 = 18,
    SIS_T1 = 19,
    SIS_T2 = 20,
    SIS_U2 = 21,
    SIS_T3 = 22,
    SIS_U3 = 23,
    SIS_T6 = 24,
    SIS_T4_64 = 25,
    SIS_T4_128 = 26,
    SIS_U4_64 = 27,
    SIS_U4_128 = 28,
    SIS_U3_64 = 29,
    SIS_T2_256 = 30,
    SIS_R4_128 = 31,
    SIS_P4 = 32,
    SIS_S3_16 = 33,
    SIS_T1_64 = 34,
    SIS_T1_128 = 35,
    SIS_T2_64 = 36,
    SIS_T2_128 = 37,
    SIS_T3_16 = 38,
    SIS_T4_16 = 39,
    SIS_U2_64 = 40,
    SIS_U6 = 41,
    SIS_U8 = 42,
    SIS_D_64 = 43,
    SIS_DECODED = 44, /* rung 2: rows are decoded while they are used */
    SIS_FOREIGN = 45, /* rung 3 */
    SIS_N_FORMATS = 46
};

/* What a code stands for. SIGNED: itself, from -2^(bits-1) to 2^(bits-1) - 1. UNSIGNED: itself, from 0 to 2^bits - 1
 * (of 8 bits as SIGNED, since products take no more), and each group has a minimum. TABLE: the entry of the weight's table of numbers of 8 bits. ROW_TABLE: that of the row's own. PAIRS: itself,
 * from -8 to 7, and of every four columns at most two are other than 0; the bits are those of a column then. TERNARY: 0, 1 and
 * 2 stand for -1, 0 and 1, and five lie in a byte; the bits are those of one by itself. */
enum sis_codes { SIS_SIGNED = 0, SIS_UNSIGNED = 1, SIS_TABLE = 2, SIS_ROW_TABLE = 3, SIS_PAIRS = 4, SIS_TERNARY = 5 };

/* How scales, and minima where there are any, are kept. HALF, BFLOAT: a number of that type for each group. BYTE: a whole
 * number from -128 to 127 for each group (a minimum: from 0 to 255), times a half for each 256 columns. NIBBLE: the same
 * from 0 to 15. SIX: as BYTE, from -32 to 31 (a minimum: from 0 to 63). SUPER: nothing but the half for each 256 columns. */
enum sis_scales { SIS_HALF = 0, SIS_BFLOAT = 1, SIS_BYTE = 2, SIS_NIBBLE = 3, SIS_SUPER = 4, SIS_SIX = 5 };

/* What tiles of a format hold. With v as the value that a code stands for, a weight is
 *
 *     scale[group] * v                       SIGNED, TABLE, ROW_TABLE, PAIRS, TERNARY
 *     scale[group] * v - minimum[group]      UNSIGNED
 *
 * where BYTE, SIX and NIBBLE make of scale and minimum the products super_scale * scale and super_minimum * minimum; SUPER has
 * super_scale alone, and no minimum. */
struct sis_kind {
    uint32_t bits;   /* of a code: 1 to 6, 8 */
    uint32_t codes;  /* enum sis_codes */
    uint32_t group;  /* columns that share a scale: 16 to 256, a power of two */
    uint32_t scales; /* enum sis_scales */
};

/* Rows of a weight that were unpacked, to be packed into tiles; C-contiguous. n_cols is a multiple of 32,
 * with BYTE, SIX, NIBBLE and SUPER, and of TERNARY, of 256: the last group of more columns than 32 may have fewer. Numbers that tiles keep as halves or bfloats are rounded to those: to nearest, ties to even. */
struct sis_unpacked {
    uint64_t n_rows;
    uint64_t n_cols;
    const uint8_t *codes; /* (n_rows, n_cols): SIGNED and PAIRS, and UNSIGNED of 8 bits, as int8, else as uint8 */
    const float *
        scales; /* (n_rows, n_cols / group), rounded up: whole numbers with BYTE, SIX and NIBBLE; not read with SUPER */
    const float *minima;       /* the same for UNSIGNED, what is subtracted; else not read */
    const float *super_scales; /* (n_rows, n_cols / 256) with BYTE, SIX, NIBBLE and SUPER; else not read */
    const float *super_minima; /* the same for UNSIGNED */
    const int8_t *table;       /* (64,) for TABLE, (n_rows, 16) for ROW_TABLE; else not read */
};

/* Memory for the tiles of many weights, which comes from the system in pieces: huge pages, where it has those. */
#define SIS_PIECE (2u << 20)
struct sis_memory {
    uint8_t *base; /* on a border of SIS_PIECE */
    uint64_t bytes;
    uint8_t *taken; /* of each piece, the last of which may be shorter, whether it is there: 1 */
    uint64_t cost;  /* nanoseconds that the last one took */
};

#define SIS_MADE 3

/* Where the tiles of raw rows stay once they are made, which steps do where `keep` is set: each by whoever needs it first. */
struct sis_place {
    uint8_t *tiles;  /* sis_tile_bytes of the weight, aligned to 64 */
    uint8_t *states; /* of each tile how far it is: 0 in the beginning, SIS_MADE in the end */
    uint32_t keep;
    uint32_t n_made; /* tiles */
    uint32_t mapped; /* raw rows are pages of a file, mapped to be read: given back when all tiles are made */
    uint32_t stack;  /* of experts, of which a step reads some */
    /* Nanoseconds that members have spent on tiles that did not stay, less what they have waited for memory since, of all
     * places that lead here: while there are any, more memory may be taken. NULL: it always may. */
    int64_t *saved;
    struct sis_memory *memory; /* where tiles lie; NULL without `saved` */
};

/* A matrix (n_rows, n_cols). Either `tiles` (made by sis_pack) or `raw` (read in place, and turned into tiles
 * sixteen rows at a time while it is used) is set; for SIS_FOREIGN, `linear`. */
struct sis_weight {
    uint32_t format;
    uint32_t reserved;
    uint64_t n_rows;
    uint64_t n_cols;
    const uint8_t *tiles;
    const uint8_t *raw;
    uint64_t row_bytes; /* from one row of raw to the next */
    sis_decode_fn decode;
    const struct sis_linear *linear;
    struct sis_place *place; /* of raw rows, or NULL */
};

/* Operations of a program. "Row" operations work on each row alone and are run together. */
enum sis_op_kind {
    SIS_OP_NORM = 0,    /* row: dst = norm(src), in `count` pieces of `width`; SIS_ADD adds it to dst */
    SIS_OP_COPY = 1,    /* row: dst = src + bias */
    SIS_OP_ADD = 2,     /* row: dst += src + bias */
    SIS_OP_ACT = 3,     /* row: dst = activation(src), times src2 with SIS_GATED */
    SIS_OP_PREPARE = 4, /* row: src in the forms (SIS_Q8, SIS_FLOAT) that the phase of linears which follows reads, into
                           place `count`: the linears before read another */
    SIS_OP_ROPE = 5,    /* row: rotate `count` heads of `width` in dst, in place */
    SIS_OP_STORE = 6,   /* row: write keys (src) and values (src2) to the cache */
    SIS_OP_SCALE = 7,   /* row: dst = cap * tanh(scale * dst / cap), or scale * dst where cap is 0; with
                           SIS_BY_POSITION scale is also multiplied by the cosine of the rotation table, of n_rot 2 */
    SIS_OP_GATHER = 8,  /* row: dst = the output rows of src; all that follows works on those */
    SIS_OP_LINEAR = 9,  /* dst = rows of place `count` @ weight.T + bias; SIS_ADD adds it to dst. SIS_FOREIGN: dst = src
                           @ weight.T and no more, with what its linear prepared in place `count`, if it does */
    SIS_OP_ATTEND = 10, /* dst = attention of queries (src) over the cache; may be src where values are as wide as keys.
                           SIS_Q8: dst is read in that form alone and may be rounded as that is on the way */
    SIS_OP_TAKE = 11,   /* row: dst = the row of weight that the token names or, with SIS_BY_POSITION, the position. Of
                           all formats but FOREIGN; DECODED from raw bytes */
    SIS_OP_PREPARE_FOREIGN = 12, /* row: src as weight's linear prepares it, into place `count` for prepared rows */
    SIS_OP_ROUTE = 13,           /* row: the experts of each row, by their logits (src) */
    SIS_OP_EXPERTS = 14,  /* what each row's experts make of it (src); the row operations before end with its ROUTE */
    SIS_OP_COMBINE = 15,  /* row: dst = the weighted sum of that; SIS_ADD adds it to dst */
    SIS_OP_GATE = 16,     /* row: dst = src times the sigmoid of src2's one value; SIS_ADD adds it to dst */
    SIS_OP_CLAMP = 17,    /* row: dst, limited to cap both ways */
    SIS_OP_MULTIPLY = 18, /* row: dst = src times gain, column by column */
    SIS_OP_HADAMARD = 19, /* row: dst = src, `count` neighbours at a time times their orthonormal Hadamard matrix */
    SIS_N_OPS = 20
};

enum sis_op_flag {
    SIS_ADD = 1,
    SIS_GATED = 2,
    SIS_Q8 = 4,
    SIS_FLOAT = 8,
    SIS_LAYER_NORM = 16,  /* NORM: subtract the mean first */
    SIS_NEOX = 32,        /* ROPE: rotate halves instead of neighbours */
    SIS_BY_POSITION = 64, /* TAKE, SCALE */
    /* What the op writes is read by a PREPARE alone, which follows: dst need not be written. Of all linears of a phase:
     * they are one, or two, and write what the ACT that follows reads, src and then src2; it passes too. */
    SIS_PASSES = 128
};

enum sis_activation { SIS_SILU = 0, SIS_GELU = 1, SIS_GELU_TANH = 2, SIS_RELU = 3, SIS_RELU2 = 4, SIS_SWIGLU_OAI = 5 };

enum sis_gating { SIS_SOFTMAX = 0, SIS_SIGMOID = 1, SIS_SOFTMAX_WEIGHT = 2, SIS_SPARSE_MIXER = 3 };
enum sis_experts_flag { SIS_RENORMALISE = 1, SIS_SCALE_INPUT = 2, SIS_HALVES = 4 };
#define SIS_MAX_EXPERTS 1024

/* The experts of a layer; see sis_core.experts. Each weight and each bias is that of all experts, one below the other: in
 * whole tiles of sixteen rows for each. Of the registers, `chosen` holds 3 * n_used columns: experts, the places of
 * their results (both int32), and weights. `up_values` holds n_used rows of n_ff columns for each row of the step, in the
 * order of experts. The op that combines their results follows. */
struct sis_experts {
    uint32_t n_expert;
    uint32_t n_used;
    uint32_t n_ff;
    uint32_t n_out;
    uint32_t gating;
    uint32_t n_group;
    uint32_t n_group_used;
    uint32_t activation;
    uint32_t flags;
    float scale;
    uint32_t chosen;
    uint32_t up_values;
    const float *selection_bias;
    const float *gate_bias;
    const float *up_bias;
    const float *down_bias;
    const struct sis_weight *gate; /* NULL: no gate; with SIS_HALVES the same as `up`: the first half of each expert */
    const struct sis_weight *up;
    const struct sis_weight *down;
};

/* Registers hold one row of floats for each row of the step: the first `n_registers` are the workspace's; number
 * SIS_OUT is the caller's output. Columns of a register are addressed by the offsets src_at and dst_at. */
#define SIS_OUT 255

/* Places for rows that are prepared, and for those that foreign linears prepare: as many kinds as linears can share one
 * input with. */
#define SIS_PLACES 8
#define SIS_PREPARED 4

/* What a step writes down beside registers, in their numbering: each place for prepared rows, all that foreign linears
 * prepare, what lies between experts and what they make of rows, and what spans of attention leave. */
enum sis_room { SIS_ROOM_FOREIGN = 8, SIS_ROOM_EXPERTS = 9, SIS_ROOM_PARTS = 10, SIS_N_ROOMS = 11 };

struct sis_register {
    uint32_t cols; /* of those that are read or written in every step: what SIS_PASSES has not written is not counted */
    uint32_t output; /* 1: nothing but output rows lies here */
};

struct sis_op {
    uint32_t kind;
    uint32_t flags;
    uint32_t src;
    uint32_t src2;
    uint32_t dst;
    uint32_t src_at;
    uint32_t src2_at;
    uint32_t dst_at;
    uint32_t width;
    uint32_t count;
    uint32_t activation;
    uint32_t layer; /* index of the cache */
    uint32_t table; /* index of the table of its kind of state */
    uint32_t rope;  /* index of the rotation table */
    uint32_t n_rot;
    uint32_t n_head;
    uint32_t n_head_kv;
    uint32_t k_dim;
    uint32_t v_dim;
    uint32_t window; /* 0: everything before */
    float eps;
    float scale;
    float cap;        /* 0: none */
    uint32_t watched; /* ATTEND: 1 + query heads of those before it that look at the whole text; 0: there is a window */
    const float *gain;
    const float *bias;
    const struct sis_weight *weight;
    /* ATTEND, (n_head,) each, or NULL: a score is less by its slope for each token that its key lies behind; a score more
     * in each head's softmax, without a value. */
    const float *slopes;
    const float *sinks;
    const struct sis_experts *experts;
};

struct sis_program {
    uint32_t version; /* SIS_PROGRAM */
    uint32_t n_ops;
    uint32_t n_registers;
    uint32_t n_out_cols;
    const struct sis_op *ops;
    const struct sis_register *registers; /* (n_registers,) */
    /* (n, n) of registers and, after them, rooms: 1 for two that hold something at the same time. The others may share
     * memory. */
    const uint8_t *apart;
};

/* The rows of one sequence within a step; see sis_core.step.Group. A page that was given back is -1: none of the rows
 * sees its tokens. */
struct sis_group {
    const int32_t *pages;
    uint32_t first;
    uint32_t n_rows;
    uint32_t length;
    uint32_t reserved;
};

/* Where one kind of state lies: the slot that each row is written to, and the groups of the step. */
struct sis_table {
    const int32_t *slots;
    const struct sis_group *groups;
};

enum sis_kv_type { SIS_KV_F32 = 0, SIS_KV_F16 = 1, SIS_KV_BF16 = 2, SIS_KV_Q8_0 = 3, SIS_KV_Q4_0 = 4 };

/* The keys and values of one layer. Page p begins at base + p * page_bytes and holds, for each key head, its keys and
 * then its values. With v_pad = v_dim rounded up to 16, these are
 *   F32, F16  keys [k_dim][page_size], values [page_size][v_pad]
 *   BF16      keys [k_dim / 2][page_size][2], values [page_size / 2][v_pad][2]: neighbours side by side, as
 *             instructions that add the products of two halves read them; an odd k_dim is filled up with zeros
 *   Q8_0      keys int8 [k_dim][page_size] and their scales F16 [k_dim / 32][page_size], then values int8
 *             [page_size][v_pad] and theirs F16 [page_size][v_pad / 32]: GGUF's blocks of 32 along a head, the last of
 *             which may be shorter
 *   Q4_0      keys [k_dim / 2][page_size], a byte for two neighbours, the first in its low half, and their scales as
 *             above, then values [page_size][v_pad / 32][16], a byte for a value and the sixteenth after it, and theirs
 * Q8_0 and Q4_0 hold keys and values times the orthonormal Hadamard matrix, of as many neighbours at a time as the largest
 * power of two that divides k_dim or v_dim. The op that attends rotates queries, and its output back. */
struct sis_kv {
    uint8_t *base;
    uint64_t page_bytes;
};

/* Cosines and sines: [position][n_rot / 2] each. */
struct sis_rotation {
    const float *cos;
    const float *sin;
};

/* What a greedy text needs of a row of logits: the likeliest token, of equal ones that with the lowest number, and the
 * highest and the lowest logit. Where any is NaN both are NaN, and the token is 0. */
struct sis_best {
    uint32_t token;
    float highest;
    float lowest;
};

/* SIS_INVARIANT: no row's result depends on how many rows share the step. Without it, instruction sets that multiply many
 * rows at once do so from a number of rows on, with other sums. */
enum sis_step_flag { SIS_INVARIANT = 1 };

struct sis_step {
    uint32_t n;
    uint32_t n_out;
    uint32_t n_groups;
    uint32_t page_size;
    uint32_t kv_type;
    uint32_t n_threads;
    uint32_t flags;
    uint32_t reserved;
    const int32_t *tokens; /* NULL for a program that takes no rows by them */
    const float *hidden;   /* (n, width of register 0): what register 0 holds at the start; NULL: nothing yet */
    float *out;            /* (n_out or n, n_out_cols) */
    const int32_t *positions;
    const int32_t *outputs;
    const struct sis_table *tables;
    const struct sis_kv *kv;
    const struct sis_rotation *rotations;
    float *watch; /* of a step of one group, where its attention goes: for each ATTEND that looks at the whole text
                   * (n, n_head, pages of the group, 2): the highest of a row's scores in a page, and the sum of
                   * 2^(score - that). Pages without keys that a row sees are left as they are. NULL: nobody asks */
    struct sis_best *best; /* (n_out,), of the rows of `out`; NULL: nobody asks */
    uint8_t *workspace;    /* aligned to 64 */
    uint64_t workspace_bytes;
    const int32_t *cpus; /* (n_threads,): the processor that each thread keeps to; NULL: wherever the system likes */
};

/* The version of this header that the library was built with. */
SIS_EXPORT uint32_t sis_program_version(void);
/* The instruction set in use, a word such as avx2; and why no better one is used, or an empty text. */
SIS_EXPORT const char *sis_isa(void);
SIS_EXPORT const char *sis_isa_note(void);
/* Sizes of the structures above in order, for a comparison with the mirror in Python; 0 past the last. */
SIS_EXPORT uint64_t sis_struct_size(uint32_t index);
/* Bytes of n_rows rows of n_cols values as tiles; 0 for a format without tiles, or a row that is not whole blocks. */
SIS_EXPORT uint64_t sis_tile_bytes(uint32_t format, uint64_t n_rows, uint64_t n_cols);
/* Pack the weight's raw rows into `tiles` on up to n_threads threads. */
SIS_EXPORT void sis_pack(const struct sis_weight *weight, uint8_t *tiles, uint32_t n_threads);
/* What tiles of a format hold; 0 where it has none, or they hold floats: then nothing is written. */
SIS_EXPORT uint32_t sis_kind(uint32_t format, struct sis_kind *kind);
/* Pack rows that were unpacked into tiles of a format, sis_tile_bytes of them, on up to n_threads threads. Of a matrix
 * that comes in several pieces all but the last have whole tiles, 16 rows each. */
SIS_EXPORT void sis_pack_unpacked(uint32_t format, const struct sis_unpacked *rows, uint8_t *tiles, uint32_t n_threads);
/* Make `weight` what `by` is, while no step is running. */
SIS_EXPORT void sis_replace(struct sis_weight *weight, const struct sis_weight *by);
/* Bytes of workspace that a step takes; its own is not looked at. */
SIS_EXPORT uint64_t sis_workspace(const struct sis_program *program, const struct sis_step *step);
/* Where each of n things of so many bytes lies, at most 255 and all rooms: those that are apart (n, n) do not overlap. Returns
 * the bytes that all take. */
SIS_EXPORT uint64_t sis_arrange(uint32_t n, const uint64_t *bytes, const uint8_t *apart, uint64_t *at);
/* What sis_run returns when there is less workspace than the step takes. Nothing was run. */
#define SIS_NO_ROOM 1000
/* Run a step. Returns 0, SIS_NO_ROOM, or what a foreign linear returned. */
SIS_EXPORT int32_t sis_run(const struct sis_program *program, const struct sis_step *step);
/* How a step of one row goes on with the likeliest token: n rows in all at most, of n_tables tables, and none after a token
 * of `ends` or after logits that are not finite. */
struct sis_multi_step {
    uint32_t n;
    uint32_t n_tables;
    uint32_t n_ends;
    uint32_t n_run; /* what sis_multi_step leaves here: how many rows there were */
    const int32_t *ends;
};
/* Run a step of one row with `best`, and then others as if each was asked for by itself. The step's positions and the
 * tables' slots have n entries, and `best` has room for n; of the other fields each row after the first has what sis_run
 * would be given. Returns what sis_run does; where there is no room for a row after the first, there are fewer. */
SIS_EXPORT int32_t sis_multi_step(const struct sis_program *program, const struct sis_step *step,
                                  struct sis_multi_step *more);
/* Read `bytes` bytes on n_threads threads and return the time in nanoseconds. */
SIS_EXPORT uint64_t sis_read(const uint8_t *data, uint64_t bytes, uint32_t n_threads);

/* Have the pages of a file that is mapped to be read, or pages of memory, there before they are needed; return once
 * *stop is not 0. A file is read here and there: guard it, where it may be cut. What memory holds stays, as long as nobody
 * else writes. */
SIS_EXPORT void sis_map_file(const uint8_t *data, uint64_t bytes, const uint32_t *stop);
SIS_EXPORT void sis_map_memory(uint8_t *data, uint64_t bytes, const uint32_t *stop);

/* Files that are read in place may be cut meanwhile, and their bytes be gone: POSIX kills whoever reads on. Where bytes
 * are guarded, zeros are read instead, from there on, and whatever guards them is marked as hit: what was computed is worth
 * nothing.
 * Signals that are about other memory go to the handler that was there before. Bytes stay guarded until sis_unguard,
 * which comes before they are unmapped. 0 where there is nothing to guard against, or no memory for it. */
SIS_EXPORT uint64_t sis_guard(const uint8_t *data, uint64_t bytes);
SIS_EXPORT void sis_unguard(uint64_t guard);
SIS_EXPORT uint32_t sis_guard_hit(uint64_t guard);
/* How often any guard was hit so far. */
SIS_EXPORT uint64_t sis_guard_hits(void);

#endif
