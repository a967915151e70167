/* Which instruction sets this build holds, and which of them this machine can run. */
#include "leaf.h"

extern const leaf_table leaf_table_base_f32, leaf_table_base_f64;

static int always(void) { return 1; }

#if defined(__x86_64__)
extern const leaf_table leaf_table_avx2_f32, leaf_table_avx2_f64;
extern const leaf_table leaf_table_avx512_f32, leaf_table_avx512_f64;

/* __builtin_cpu_supports asks cpuid and, through xgetbv, whether the system saves the registers. */
static int has_avx2(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
static int has_avx512(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("fma");
}
#elif defined(__aarch64__)
extern const leaf_table leaf_table_neon_f32, leaf_table_neon_f64;
#endif

const leaf_isa leaf_built[] = {
#if defined(__x86_64__)
    {"avx512", &leaf_table_avx512_f32, &leaf_table_avx512_f64, has_avx512, leaf_built + 1},
    {"avx2", &leaf_table_avx2_f32, &leaf_table_avx2_f64, has_avx2, 0},
#elif defined(__aarch64__)
    {"neon", &leaf_table_neon_f32, &leaf_table_neon_f64, always, 0},
#endif
    {"base", &leaf_table_base_f32, &leaf_table_base_f64, always, 0},
    {0, 0, 0, 0, 0},
};
