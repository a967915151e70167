/* Leaf kernels for arm64, whose baseline includes NEON with fused multiply-add. */
#if defined(__aarch64__)
#include <arm_neon.h>
#define LEAF_ISA_NEON 1
#define LEAF_NAME neon
#include "leaf_isa.inc.c"
#else
typedef int leaf_neon_not_built; /* a translation unit may not be empty */
#endif
