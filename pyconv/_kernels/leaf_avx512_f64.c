/* Leaf kernels for x86-64 with AVX-512, of float64. */
#define LEAF_ONLY_F64 1
#include "leaf_avx512.c"
