/* Leaf kernels for x86-64 with AVX2 and FMA. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#include <immintrin.h>
#define LEAF_ISA_AVX2 1
#define LEAF_NAME avx2
#include "leaf_isa.inc.c"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int leaf_avx2_not_built; /* a translation unit may not be empty */
#endif
