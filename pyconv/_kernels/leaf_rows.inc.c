/* Taps that read the lines of the input where they are, each line found by a pointer.
 *
 *   As in `taps`, a column of taps has its weights once, and then each line that the tile reads.
 *   There is code for each pair of lengths of columns, and none for tiles of fewer rows: where rows
 *   are left, a tile overlaps the one before.
 *   Where outputs are two elements of a line apart, a vector is every second element of two: the
 *   first ones for the taps that begin a line, the second ones of what starts one element before for
 *   the others, so that nothing is read outside what the taps read.  They are in the order of lanes
 *   until they are stored. */
INLINE VEC NAME(rows_vector)(const int step, const int first, const T *src) {
    if (step == 1) return VLOAD(src);
    if (first) return VLANEEVEN(VLOAD(src), VLOAD(src + VL));
    return VLANEODD(VLOAD(src - 1), VLOAD(src + VL - 1));
}

INLINE void NAME(rows_column)(const int step, const int first, const int taps, const int rows,
                              const int vecs, const T *const *line, ptrdiff_t ls, ptrdiff_t at,
                              ptrdiff_t gap, const T *w, ptrdiff_t ws, VEC acc[4][8]) {
    VEC wv[LEAF_COLUMN_TAPS];
    UNROLL for (int k = 0; k < taps; ++k) wv[k] = VSET1(w[k * ws]);
    UNROLL for (int i = 0; i < rows + taps - 1; ++i) {
        const T *src = *line + at;
        UNROLL for (int v = 0; v < vecs; ++v) {
            VEC x = NAME(rows_vector)(step, first, src + v * gap);
            VKEEP(x);
            UNROLL for (int r = 0; r < rows; ++r)
                if (r <= i && i - r < taps) acc[r][v] = VFMA(wv[i - r], x, acc[r][v]);
        }
        line += ls;
    }
}

/* The same, whether or not the column's taps begin a line. */
INLINE void NAME(rows_columns)(const int step, const int taps, const int rows, const int vecs,
                               const T *const *line, ptrdiff_t ls, const leaf_column *column,
                               ptrdiff_t at, ptrdiff_t gap, const T *w, ptrdiff_t ws,
                               VEC acc[4][8]) {
    line += column->lines;
    at = column->src + step * at;
    gap *= step;
    w += column->weight;
    if (step > 1 && column->src == 0)
        NAME(rows_column)(step, 1, taps, rows, vecs, line, ls, at, gap, w, ws, acc);
    else
        NAME(rows_column)(step, 0, taps, rows, vecs, line, ls, at, gap, w, ws, acc);
}

INLINE void NAME(rows_tile)(const int step, const int more, const int fewer, const int rows,
                            const int vecs, const leaf_column *column, const leaf_column *middle,
                            const leaf_column *end, const T *const *line, ptrdiff_t ls,
                            ptrdiff_t at, ptrdiff_t gap, const T *w, ptrdiff_t ws, VEC bias, T *dst,
                            ptrdiff_t dst_rs) {
    VEC acc[4][8];
    UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int v = 0; v < vecs; ++v) acc[r][v] = VZERO();
    for (; column < middle; ++column)
        NAME(rows_columns)(step, more, rows, vecs, line, ls, column, at, gap, w, ws, acc);
    if (fewer > 0)
        for (; column < end; ++column)
            NAME(rows_columns)(step, fewer, rows, vecs, line, ls, column, at, gap, w, ws, acc);
    UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int v = 0; v < vecs; ++v) {
        VEC y = VADD(bias, acc[r][v]);
        if (step == 2) y = VINORDER(y);
        VSTORE(dst + r * dst_rs + at + v * gap, y);
    }
}

/* Nine taps, the most usual, four whole rows at a time: where the lines are is in registers, and
 * tiles are two vectors wide, for multiply-adds of a line not to wait for those of the one before. */
INLINE void NAME(rows_nine)(const int vecs, const T *const *src, const leaf_column *column,
                            ptrdiff_t j, ptrdiff_t gap, const T *w, ptrdiff_t ws, VEC bias, T *dst,
                            ptrdiff_t dst_rs) {
    VEC acc[4][2];
    UNROLL for (int r = 0; r < 4; ++r) UNROLL for (int v = 0; v < vecs; ++v) acc[r][v] = VZERO();
    UNROLL for (int c = 0; c < 3; ++c) {
        const ptrdiff_t at = column[c].src + j;
        VEC wv[3];
        UNROLL for (int k = 0; k < 3; ++k) wv[k] = VSET1(w[column[c].weight + k * ws]);
        UNROLL for (int i = 0; i < 6; ++i) UNROLL for (int v = 0; v < vecs; ++v) {
            VEC x = VLOAD(src[i] + at + v * gap);
            VKEEP(x);
            UNROLL for (int r = 0; r < 4; ++r)
                if (r <= i && i - r < 3) acc[r][v] = VFMA(wv[i - r], x, acc[r][v]);
        }
    }
    UNROLL for (int r = 0; r < 4; ++r) UNROLL for (int v = 0; v < vecs; ++v)
        VSTORE(dst + r * dst_rs + j + v * gap, VADD(bias, acc[r][v]));
}

INLINE void NAME(rows_3x3)(ptrdiff_t cols, const leaf_column *column, const T *const *line,
                           ptrdiff_t ls, const T *w, ptrdiff_t ws, VEC bias, T *dst,
                           ptrdiff_t dst_rs) {
    const T *src[6];
    ptrdiff_t j = 0;
    line += column->lines;
    UNROLL for (int i = 0; i < 6; ++i) src[i] = line[i * ls];
    for (; j + VL < cols; j += 2 * VL)
        NAME(rows_nine)(2, src, column, j, j + 2 * VL <= cols ? VL : cols - VL - j, w, ws, bias,
                        dst, dst_rs);
    if (j < cols) NAME(rows_nine)(1, src, column, cols - VL, 0, w, ws, bias, dst, dst_rs);
}

/* The same where lines and elements of the input are taken two by two: lines 0 and 2 of an output,
 * column by column, before line 1.  Columns 1 and 2 are the two halves of what is loaded once; with a
 * padding of 1 it is these that begin with the line. */
INLINE void NAME(rows_fifth)(const int i, VEC x, VEC first, VEC last, VEC acc[4]) {
    VKEEP(x);
    if (i > 0) acc[i - 1] = VFMA(last, x, acc[i - 1]);
    if (i < 4) acc[i] = VFMA(first, x, acc[i]);
}

INLINE void NAME(rows_3x3_halved)(ptrdiff_t cols, const leaf_column *column,
                                  const T *const *line, const T *w, ptrdiff_t ws, VEC bias,
                                  T *dst, ptrdiff_t dst_rs) {
    const T *src[9];
    line += column->lines;
    UNROLL for (int i = 0; i < 9; ++i) src[i] = line[i] + column->src;
    for (ptrdiff_t j = 0; j < cols; j += VL) {
        VEC acc[4] = {VZERO(), VZERO(), VZERO(), VZERO()}, odd[5], first[3], last[3];
        if (j + VL > cols) j = cols - VL;
        UNROLL for (int c = 0; c < 3; ++c) {
            first[c] = VSET1(w[column[c].weight]);
            last[c] = VSET1(w[column[c].weight + ws]);
        }
        UNROLL for (int i = 0; i < 5; ++i) {
            const T *x = src[2 * i] + 2 * j;
            NAME(rows_fifth)(i, VLANEEVEN(VLOAD(x), VLOAD(x + VL)), first[0], last[0], acc);
        }
        UNROLL for (int i = 0; i < 5; ++i) {
            const T *x = src[2 * i] + 2 * j + 1;
            VEC a = VLOAD(x), b = VLOAD(x + VL);
            odd[i] = VLANEODD(a, b);
            VKEEP(odd[i]);
            NAME(rows_fifth)(i, VLANEEVEN(a, b), first[1], last[1], acc);
        }
        UNROLL for (int i = 0; i < 5; ++i)
            NAME(rows_fifth)(i, odd[i], first[2], last[2], acc);
        UNROLL for (int c = 0; c < 3; ++c) first[c] = VSET1(w[column[3 + c].weight]);
        UNROLL for (int r = 0; r < 4; ++r) {
            const T *x = src[2 * r + 1] + 2 * j;
            VEC a = VLOAD(x + 1), b = VLOAD(x + VL + 1);
            acc[r] = VFMA(first[0], VLANEEVEN(VLOAD(x), VLOAD(x + VL)), acc[r]);
            acc[r] = VFMA(first[1], VLANEEVEN(a, b), acc[r]);
            acc[r] = VFMA(first[2], VLANEODD(a, b), acc[r]);
        }
        UNROLL for (int r = 0; r < 4; ++r)
            VSTORE(dst + r * dst_rs + j, VINORDER(VADD(bias, acc[r])));
    }
}

/* Single taps two by two next to each other, where elements are taken two by two as well: what is
 * loaded serves both. */
INLINE void NAME(rows_pairs)(const int vecs, const leaf_column *column, const leaf_column *end,
                             const T *const *line, ptrdiff_t ls, ptrdiff_t j, ptrdiff_t gap,
                             const T *w, VEC bias, T *dst, ptrdiff_t dst_rs) {
    VEC acc[4][2];
    UNROLL for (int r = 0; r < 4; ++r) UNROLL for (int v = 0; v < vecs; ++v) acc[r][v] = VZERO();
    for (; column < end; column += 2) {
        VEC first = VSET1(w[column[0].weight]), second = VSET1(w[column[1].weight]);
        VKEEP(first);
        VKEEP(second);
        UNROLL for (int r = 0; r < 4; ++r) UNROLL for (int v = 0; v < vecs; ++v) {
            const T *x = line[column->lines + r * ls] + 2 * (j + v * gap);
            VEC a = VLOAD(x), b = VLOAD(x + VL);
            acc[r][v] = VFMA(first, VLANEEVEN(a, b), acc[r][v]);
            acc[r][v] = VFMA(second, VLANEODD(a, b), acc[r][v]);
        }
    }
    UNROLL for (int r = 0; r < 4; ++r) UNROLL for (int v = 0; v < vecs; ++v)
        VSTORE(dst + r * dst_rs + j + v * gap, VINORDER(VADD(bias, acc[r][v])));
}

INLINE int NAME(in_pairs)(const leaf_column *column, const leaf_column *end) {
    if ((end - column) % 2 > 0) return 0;
    for (; column < end; column += 2)
        if (column[0].src != 0 || column[1].src != 1 || column[0].lines != column[1].lines) return 0;
    return 1;
}

/* Rows from left to right, four at a time: strips of two vectors, then one where it is left.  The
 * last vector ends where the rows do, and may overlap the one before. */
INLINE void NAME(rows_of)(const int step, const int more, const int fewer, ptrdiff_t rows,
                          ptrdiff_t cols, ptrdiff_t n, const leaf_column *column,
                          const T *const *line, ptrdiff_t ls, const T *w, ptrdiff_t ws, VEC bias,
                          T *dst, ptrdiff_t dst_rs) {
    const leaf_column *end = column + n, *middle = column;
    const int nine = step == 1 ? more == 3 && n == 3 && column[0].lines == column[2].lines
                               : more == 2 && n == 6 && ls == 2
                                     && column[3].lines == column[0].lines + 1
                                     && column[5].lines == column[0].lines + 1
                                     && column[2].src == column[0].src + 2;
    const int pairs = step == 2 && more == 1 && NAME(in_pairs)(column, end);
    while (middle < end && middle->taps == more) ++middle;
    for (ptrdiff_t next = 0; next < rows; next += 4) {
        ptrdiff_t r = next + 4 <= rows ? next : rows - 4, j = 0;
        if (nine && step == 1) {
            NAME(rows_3x3)(cols, column, line + r * ls, ls, w, ws, bias, dst + r * dst_rs, dst_rs);
            continue;
        }
        if (nine && step == 2) {
            NAME(rows_3x3_halved)(cols, column, line + r * ls, w, ws, bias, dst + r * dst_rs,
                                  dst_rs);
            continue;
        }
        if (pairs) {
            for (; j + VL < cols; j += 2 * VL)
                NAME(rows_pairs)(2, column, end, line + r * ls, ls, j,
                                 j + 2 * VL <= cols ? VL : cols - VL - j, w, bias,
                                 dst + r * dst_rs, dst_rs);
            if (j < cols)
                NAME(rows_pairs)(1, column, end, line + r * ls, ls, cols - VL, 0, w, bias,
                                 dst + r * dst_rs, dst_rs);
            continue;
        }
        for (; j + VL < cols; j += 2 * VL)
            NAME(rows_tile)(step, more, fewer, 4, 2, column, middle, end, line + r * ls, ls, j,
                            j + 2 * VL <= cols ? VL : cols - VL - j, w, ws, bias, dst + r * dst_rs,
                            dst_rs);
        if (j < cols)
            NAME(rows_tile)(step, more, fewer, 4, 1, column, middle, end, line + r * ls, ls,
                            cols - VL, 0, w, ws, bias, dst + r * dst_rs, dst_rs);
    }
}

#define ROWS_CASE(step, more, fewer)                                                             \
    case LEAF_ROWS(step, more, fewer):                                                           \
        NAME(rows_of)(step, more, fewer, rows, cols, n, column, line, ls, w, ws, bias, dst,      \
                      dst_rs);                                                                   \
        return;

static void NAME(taps_rows)(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t kind, ptrdiff_t n,
                            const leaf_column *column, const void *const *line_, ptrdiff_t ls,
                            const void *w, ptrdiff_t ws, const void *bias_, void *dst,
                            ptrdiff_t dst_rs) {
    const T *const *line = (const T *const *)line_;
    const VEC bias = VSET1(*(const T *)bias_);
    switch (kind) { LEAF_ROWS_KINDS(ROWS_CASE) }
}
#undef ROWS_CASE

static void NAME(fetch)(const void *p, ptrdiff_t bytes, int written) {
    for (ptrdiff_t at = 0; at < bytes; at += 64)
        if (written)
            __builtin_prefetch((const char *)p + at, 1);
        else
            __builtin_prefetch((const char *)p + at, 0);
}
