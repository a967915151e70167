/* Taps of the two residue classes of a line, woven in registers into one row of the result.
 * Included by leaf.inc.c, for each instruction set and compute type.
 *
 *   A tap's weight is broadcast once for all rows of a tile, and each output is a chain over the
 *   taps of its class: columns of taps would be short, and share few lines.
 *   AVX2, 4 rows: 8 accumulators + 1 weight + 1 of a line = 10 of 16 registers */
INLINE void NAME(pair_taps)(const int rows, ptrdiff_t n, const leaf_column *column, const T *src,
                            ptrdiff_t rs, const T *w, VEC acc[LEAF_PAIR_ROWS]) {
    UNROLL for (int r = 0; r < rows; ++r) acc[r] = VZERO();
    for (; n > 0; --n, ++column) {
        const T *line = src + column->src;
        const VEC wv = VSET1(w[column->weight]);
        UNROLL for (int r = 0; r < rows; ++r) acc[r] = VFMA(wv, VLOAD(line + r * rs), acc[r]);
    }
}

INLINE void NAME(pair_tile)(const int rows, ptrdiff_t first, ptrdiff_t second,
                            const leaf_column *column, const T *src, ptrdiff_t rs, const T *w,
                            VEC bias, T *dst, ptrdiff_t dst_rs) {
    VEC even[LEAF_PAIR_ROWS], odd[LEAF_PAIR_ROWS];
    NAME(pair_taps)(rows, first, column, src, rs, w, even);
    NAME(pair_taps)(rows, second, column + first, src, rs, w, odd);
    UNROLL for (int r = 0; r < rows; ++r) {
        const VEC a = VADD(bias, even[r]), b = VADD(bias, odd[r]);
        VSTORE(dst + r * dst_rs, VLOW(a, b));
        VSTORE(dst + r * dst_rs + VL, VHIGH(a, b));
    }
}

/* The last tile of a row of even length ends where the row does, over the one before; another one,
 * and one that is shorter than a tile, is taken to its place. */
INLINE void NAME(pair_strip)(const int rows, ptrdiff_t length, ptrdiff_t first, ptrdiff_t second,
                             const leaf_column *column, const T *src, ptrdiff_t rs, const T *w,
                             VEC bias, T *dst, ptrdiff_t dst_rs, ptrdiff_t ahead) {
    ptrdiff_t j = 0;
    for (; 2 * (j + VL) <= length; j += VL) {
        if (ahead != 0)
            UNROLL for (int r = 0; r < rows; ++r)
                __builtin_prefetch(dst + ahead + r * dst_rs + 2 * j, 1);
        NAME(pair_tile)(rows, first, second, column, src + j, rs, w, bias, dst + 2 * j, dst_rs);
    }
    if (2 * j == length) return;
    if (length % 2 == 0 && length >= 2 * VL) {
        j = length / 2 - VL;
        NAME(pair_tile)(rows, first, second, column, src + j, rs, w, bias, dst + 2 * j, dst_rs);
        return;
    }
    T tile[LEAF_PAIR_ROWS * 2 * VL];
    NAME(pair_tile)(rows, first, second, column, src + j, rs, w, bias, tile, 2 * VL);
    for (int r = 0; r < rows; ++r)
        NAME(copy_row)(dst + r * dst_rs + 2 * j, tile + r * 2 * VL, length - 2 * j);
}

static void NAME(taps_pair)(ptrdiff_t rows, ptrdiff_t length, ptrdiff_t first, ptrdiff_t second,
                            const leaf_column *column, const void *src, ptrdiff_t src_rs,
                            const void *w, const void *bias_, void *dst, ptrdiff_t dst_rs,
                            ptrdiff_t ahead) {
    const VEC bias = VSET1(*(const T *)bias_);
    switch (rows) {
#define PAIR_CASE(rows)                                                                           \
    case rows:                                                                                    \
        NAME(pair_strip)(rows, length, first, second, column, src, src_rs, w, bias, dst, dst_rs,  \
                         ahead);                                                                  \
        return;
        PAIR_CASE(1)
        PAIR_CASE(2)
        PAIR_CASE(3)
        PAIR_CASE(4)
#undef PAIR_CASE
    }
}
