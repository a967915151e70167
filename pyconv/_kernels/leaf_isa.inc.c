/* Compiles the leaf kernels for one instruction set, in both compute types.
 * The including file has set LEAF_ISA_* and LEAF_NAME, and the compiler's target; LEAF_ONLY_F32 or
 * LEAF_ONLY_F64 where each type is a translation unit of its own, so that both compile at once. */
#include "leaf.h"

#define LEAF_CAT_(a, b, c) a##_##b##_##c
#define LEAF_CAT(a, b, c) LEAF_CAT_(a, b, c)
#define LEAF_STR_(x) #x
#define LEAF_STR(x) LEAF_STR_(x)

#include "leaf_storage.h"

#ifndef LEAF_ONLY_F64
#define LEAF_TYPE f32
#include "leaf_simd.h"
#include "leaf.inc.c"
#undef LEAF_TYPE
#undef UVEC
#endif

#ifndef LEAF_ONLY_F32
#define LEAF_DOUBLE 1
#define LEAF_TYPE f64
#include "leaf_simd.h"
#include "leaf.inc.c"
#undef LEAF_TYPE
#undef LEAF_DOUBLE
#endif
