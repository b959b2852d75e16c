/* The workspace of a step: how much each thing takes that a step writes down, and where it lies. Things that are never in
 * use at the same time may share memory, as values share registers of a processor; who may is found once for a program
 * (`liveness.py`), where they lie once for a step, since sizes follow from rows and from the instruction set. */
#include "run.h"

#define MAX_THINGS (SIS_OUT + SIS_N_ROOMS) /* registers, then rooms */

/* The largest of each kind of workspace that any op wants, in bytes. */
struct sizes {
    size_t places[SIS_PLACES][2], prepared[SIS_PREPARED], parts;      /* places: in SIS_Q8, in SIS_FLOAT */
    size_t many_scratch, raw_scratch, row_scratch, values, attention; /* of each thread */
    struct experts_room experts;
};

/* What ops want of the step that is to be run; strides are columns of registers until these are laid out. */
static struct sizes measure(struct run *run)
{
    const struct sis_program *p = run->program;
    const struct sis_step *step = run->step;
    struct sizes s = {0};
    int gathered = 0;
    uint32_t together = 0; /* linears of the phase at hand that pass what they write; 0: none does */
    for (uint32_t r = 0; r < p->n_registers; r++) run->strides[r] = p->registers[r].cols;
    for (uint32_t i = 0; i < p->n_ops; i++) {
        const struct sis_op *op = &p->ops[i];
        gathered |= op->kind == SIS_OP_GATHER;
        const uint32_t n = run->n_rows[gathered];
        if (op->kind == SIS_OP_PREPARE)
            for (uint32_t form = SIS_Q8; form <= SIS_FLOAT; form *= 2) {
                if (!(op->flags & form)) continue;
                const struct many_rows *many = many_in(run, gathered, form);
                size_t *bytes = &s.places[op->count][form == SIS_FLOAT];
                if (many) {
                    raise_to(bytes, up(many->x_bytes(n, op->width, form)));
                    raise_to(&s.many_scratch, up(many->scratch_bytes(n, op->width, form)));
                } else if (form == SIS_Q8)
                    raise_to(bytes, up((size_t)n * (op->width / BLOCK) * sizeof(struct q8_block)));
                else raise_to(bytes, up(n * sis_float_row(run->kernels, op->width) * sizeof(float)));
            }
        if (op->kind == SIS_OP_LINEAR && (i == 0 || p->ops[i - 1].kind != SIS_OP_LINEAR)) {
            const uint32_t end = end_of_phase(p, i);
            together = can_pass(run, i, end, gathered) ? end - i : 0;
        }
        if (op->kind == SIS_OP_LINEAR && op->weight->raw) {
            const struct sis_weight *w = op->weight;
            const struct many_rows *many = many_in(run, gathered, form_of(w));
            const size_t unit = sis_one_tile_bytes(w->format, w->n_cols) << LOG_TILES;
            const size_t decoded = w->format == SIS_DECODED ? TILE * w->n_cols * sizeof(float) : 0;
            const uint32_t at_once = together ? together : 1;
            raise_to(&s.raw_scratch, (many ? raw_units(w, many, n, at_once) * at_once : 1) * unit + up(decoded));
        }
        if (op->flags & SIS_PASSES && op->kind == SIS_OP_LINEAR) {
            if (together) raise_to(&s.values, passing_bytes(many_in(run, gathered, form_of(op->weight)), n));
            else raise_to(&run->strides[op->dst], op->dst_at + op->weight->n_rows);
        } else if (op->flags & SIS_PASSES)
            raise_to(&s.row_scratch, up((size_t)run->kernels->max_rows * op->width * sizeof(float)));
        if (op->kind == SIS_OP_PREPARE_FOREIGN) {
            const struct sis_linear *linear = op->weight->linear;
            raise_to(&s.prepared[op->count], up(linear->prepared_bytes(linear->self, n)));
        }
        if (op->kind == SIS_OP_EXPERTS) experts_room(op, step->n, is_invariant(step), &s.experts);
        if (op->kind == SIS_OP_ATTEND) {
            raise_to(&s.parts, sis_attend_bytes(step, op));
            raise_to(&s.attention, sis_attend_scratch(step, op));
        }
    }
    raise_to(&s.many_scratch, s.experts.many_scratch);
    raise_to(&s.raw_scratch, s.experts.raw_scratch);
    raise_to(&s.values, s.experts.gates);
    return s;
}

/* Memory while it is given out; without a base it is only counted. */
struct room {
    uint8_t *base;
    size_t used;
};

static void *place(struct room *room, size_t bytes)
{
    void *found = room->base ? room->base + room->used : NULL;
    room->used += bytes;
    return found;
}

/* What experts work with; the bytes that it takes. */
static size_t lay_out_experts(struct run *run, const struct experts_room *sizes, uint8_t *base)
{
    struct room of_both = {base, 0}, of_product[2];
    uint8_t *of_order = place(&of_both, sizes->order);
    if (of_order) *run->order = experts_order(sizes, of_order);
    of_product[0] = of_product[1] = of_both; /* the first is done with its rows when the second begins */
    for (int product = 0; product < 2; product++) {
        struct room *its = &of_product[product];
        for (int i = 0; i < N_ROW_FORMS; i++) run->expert_x[product][i] = place(its, sizes->rows[product][i]);
        for (int i = 0; i < 2; i++) run->expert_many[product][i] = place(its, sizes->many[product][i]);
    }
    run->expert_out = place(&of_product[1], sizes->out);
    raise_to(&of_product[0].used, of_product[1].used);
    return of_product[0].used;
}

/* Larger things first, each as low as it can lie without touching what is apart from it: "greedy by size", Pisarchyk and
 * Lee 2020, "Efficient Memory Management for Deep Neural Net Inference". */
uint64_t sis_arrange(uint32_t n, const uint64_t *bytes, const uint8_t *apart, uint64_t *at)
{
    uint32_t order[MAX_THINGS], n_placed = 0;
    uint64_t used = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t place = n_placed;
        at[i] = 0;
        if (!bytes[i]) continue;
        for (; place && bytes[order[place - 1]] < bytes[i]; place--) order[place] = order[place - 1];
        order[place] = i;
        n_placed++;
    }
    for (uint32_t i = 0; i < n_placed; i++) {
        const uint32_t thing = order[i];
        uint64_t lowest = 0;
        for (uint32_t j = 0; j < i; j++) {
            const uint32_t other = order[j];
            if (!apart[thing * n + other] || lowest + bytes[thing] <= at[other] || at[other] + bytes[other] <= lowest)
                continue;
            lowest = at[other] + bytes[other];
            j = UINT32_MAX; /* from the first again */
        }
        at[thing] = lowest;
        if (lowest + bytes[thing] > used) used = lowest + bytes[thing];
    }
    return used;
}

size_t lay_out(struct run *run)
{
    const struct sis_program *program = run->program;
    const struct sis_step *step = run->step;
    const struct sizes s = measure(run);
    const size_t rows = step->n > step->n_out ? step->n : step->n_out;
    const uint32_t n = program->n_registers + SIS_N_ROOMS;
    uint64_t bytes[MAX_THINGS], at[MAX_THINGS], *rooms = bytes + program->n_registers;
    for (uint32_t r = 0; r < program->n_registers; r++) {
        run->strides[r] = up(run->strides[r] * sizeof(float)) / sizeof(float);
        bytes[r] = run->strides[r] * sizeof(float) * (program->registers[r].output ? run->n_rows[1] : rows);
    }
    for (int p = 0; p < SIS_PLACES; p++) rooms[p] = s.places[p][0] + s.places[p][1];
    rooms[SIS_ROOM_FOREIGN] = 0;
    for (int i = 0; i < SIS_PREPARED; i++) rooms[SIS_ROOM_FOREIGN] += s.prepared[i];
    rooms[SIS_ROOM_EXPERTS] = lay_out_experts(run, &s.experts, NULL);
    rooms[SIS_ROOM_PARTS] = s.parts;
    /* Of a thread: a kind of phase has it to itself, but for what linears pass on, which lies behind what they work with. */
    run->raw_at = s.many_scratch;
    run->values_at = s.many_scratch + s.raw_scratch;
    run->scratch_bytes = run->values_at + s.values;
    raise_to(&run->scratch_bytes, s.experts.gathered);
    raise_to(&run->scratch_bytes, s.attention);
    raise_to(&run->scratch_bytes, s.row_scratch);

    struct room whole = {step->workspace, sis_arrange(n, bytes, program->apart, at)};
    run->groups[0] = place(&whole, up(step->n * sizeof(struct group_of_rows)));
    run->groups[1] = place(&whole, up(step->n_out * sizeof(struct group_of_rows)));
    run->scratch = place(&whole, run->scratch_bytes * (step->n_threads < MAX_THREADS ? step->n_threads : MAX_THREADS));
    place(&whole, 64); /* the last values may be read as a whole vector */
    if (!step->workspace || step->workspace_bytes < whole.used) return whole.used;

    const uint64_t *of_rooms = at + program->n_registers;
    for (uint32_t r = 0; r < program->n_registers; r++) run->registers[r] = (float *)(void *)(step->workspace + at[r]);
    for (int p = 0; p < SIS_PLACES; p++) {
        run->places[p][0] = step->workspace + of_rooms[p];
        run->places[p][1] = run->places[p][0] + s.places[p][0];
    }
    struct room foreign = {step->workspace + of_rooms[SIS_ROOM_FOREIGN], 0};
    for (int i = 0; i < SIS_PREPARED; i++) run->prepared[i] = place(&foreign, s.prepared[i]);
    lay_out_experts(run, &s.experts, step->workspace + of_rooms[SIS_ROOM_EXPERTS]);
    run->parts = (float *)(void *)(step->workspace + of_rooms[SIS_ROOM_PARTS]);
    return whole.used;
}

struct run run_of(const struct sis_program *program, const struct sis_step *step)
{
    struct run run = {.program = program, .step = step, .kernels = sis_kernels(), .n_rows = {step->n, step->n_out}};
    for (int i = 0; i < 2; i++)
        for (uint32_t form = SIS_Q8; form <= SIS_FLOAT; form *= 2)
            run.many[i][form == SIS_FLOAT] = sis_many_for(run.kernels, run.n_rows[i], form, is_invariant(step));
    return run;
}

uint64_t sis_workspace(const struct sis_program *program, const struct sis_step *step)
{
    struct sis_step asked = *step;
    asked.workspace = NULL;
    struct run run = run_of(program, &asked);
    team_take_turn(); /* weights may be replaced between turns */
    const uint64_t bytes = lay_out(&run);
    team_give_turn();
    return bytes;
}
