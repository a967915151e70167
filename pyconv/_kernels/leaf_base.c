/* Leaf kernels for the architecture's baseline: runs on every CPU, the others' fallback. */
#define LEAF_NAME base
#include "leaf_isa.inc.c"
