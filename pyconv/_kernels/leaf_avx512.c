/* Leaf kernels for x86-64 with AVX-512 (F, DQ, BW, VL): of float32, or those of leaf_avx512_f64.c,
 * which take as long to compile. */
#ifndef LEAF_ONLY_F64
#define LEAF_ONLY_F32 1
#endif
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,fma")
#endif
#include <immintrin.h>
#define LEAF_ISA_AVX512 1
#define LEAF_NAME avx512
#include "leaf_isa.inc.c"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int leaf_avx512_not_built; /* a translation unit may not be empty */
#endif
