/* The version and the sizes of what the header describes. */
#include "kernels.h"

uint32_t sis_program_version(void) { return SIS_PROGRAM; }

const char *sis_isa(void) { return sis_kernels()->isa; }

uint64_t sis_struct_size(uint32_t index)
{
    static const uint64_t sizes[] = {
        sizeof(struct sis_rows),     sizeof(struct sis_linear),  sizeof(struct sis_kind),
        sizeof(struct sis_unpacked), sizeof(struct sis_memory),  sizeof(struct sis_place),
        sizeof(struct sis_weight),   sizeof(struct sis_experts), sizeof(struct sis_register),
        sizeof(struct sis_op),       sizeof(struct sis_program), sizeof(struct sis_group),
        sizeof(struct sis_table),    sizeof(struct sis_kv),      sizeof(struct sis_rotation),
        sizeof(struct sis_best),     sizeof(struct sis_step),    sizeof(struct sis_multi_step),
    };
    return index < sizeof sizes / sizeof *sizes ? sizes[index] : 0;
}
