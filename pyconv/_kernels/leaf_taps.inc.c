/* Taps that read copies of lines, one pitch apart: tall tiles, each output a chain over the taps.
 * Included by leaf.inc.c, for each instruction set and compute type.
 *
 *   A column of taps has its weights once, and then each line that the tile reads once, for all the
 *   rows that it meets.  Rows hide the latency of each other's multiply-adds: where there are few,
 *   vectors of a row do.
 *   AVX2, 9 rows, 5 taps: 9 accumulators + 5 weights + 1 of a line = 15 of 16 registers */
#define TAPS_TALL 9
#define TAPS_MOST 8
#define TAPS_MANY 8 /* fewer of them wait for what is read, not for each other */

INLINE void NAME(taps_column)(const int taps, const int rows, const int vecs, const T *src,
                              ptrdiff_t rs, ptrdiff_t gap, const T *w, ptrdiff_t ws,
                              VEC acc[TAPS_TALL][8]) {
    VEC wv[LEAF_COLUMN_TAPS];
    UNROLL for (int k = 0; k < taps; ++k) wv[k] = VSET1(w[k * ws]);
    UNROLL for (int i = 0; i < rows + taps - 1; ++i) {
        UNROLL for (int v = 0; v < vecs; ++v) {
            VEC x = VLOAD(src + v * gap);
            VKEEP(x);
            UNROLL for (int r = 0; r < rows; ++r)
                if (r <= i && i - r < taps) acc[r][v] = VFMA(wv[i - r], x, acc[r][v]);
        }
        src += rs;
    }
}

/* A loop for each number of taps: as cases of one loop they would share their loads, and registers
 * with them.  Where there are several chains, the sum of those before is in memory meanwhile. */
#define TAPS_COLUMNS(taps_)                                                                       \
    for (; column < end && column->taps == taps_ && column->chain == chain; ++column)             \
        NAME(taps_column)(taps_, rows, vecs, src + column->src, rs, gap, w + column->weight, ws,  \
                          acc);

INLINE void NAME(taps_tile)(const int rows, const int vecs, ptrdiff_t n, const leaf_column *column,
                            const T *src, ptrdiff_t rs, ptrdiff_t gap, const T *w, ptrdiff_t ws,
                            VEC bias, T *dst, ptrdiff_t dst_rs) {
    const leaf_column *end = column + n;
    ptrdiff_t chain = n > 0 ? column->chain : 0;
    int chains = 0;
    T total[TAPS_TALL * 8 * VL];
    VEC acc[TAPS_TALL][8];
    for (;; chain = column->chain) {
        UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int v = 0; v < vecs; ++v)
            acc[r][v] = VZERO();
        TAPS_COLUMNS(5)
        TAPS_COLUMNS(4)
        TAPS_COLUMNS(3)
        TAPS_COLUMNS(2)
        TAPS_COLUMNS(1)
        if (chains > 0)
            UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int v = 0; v < vecs; ++v)
                acc[r][v] = VADD(VLOAD(total + (r * vecs + v) * VL), acc[r][v]);
        if (column == end) break;
        UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int v = 0; v < vecs; ++v)
            VSTORE(total + (r * vecs + v) * VL, acc[r][v]);
        ++chains;
    }
    UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int v = 0; v < vecs; ++v)
        VSTORE(dst + r * dst_rs + v * gap, VADD(bias, acc[r][v]));
}
#undef TAPS_COLUMNS

/* Asks for the next lines of what is to be read, and written, after this call. */
INLINE void NAME(taps_ahead)(const char **next, ptrdiff_t *left, ptrdiff_t share, const int written) {
    const ptrdiff_t bytes = share < *left ? share : *left;
    for (ptrdiff_t i = 0; i < bytes; i += 64)
        if (written)
            __builtin_prefetch(*next + i, 1);
        else
            __builtin_prefetch(*next + i, 0);
    *next += bytes;
    *left -= bytes;
}

/* Tiles side by side; the last vector ends where the rows do, and may overlap the one before. */
INLINE void NAME(taps_strip)(const int rows, const int vecs, ptrdiff_t cols, ptrdiff_t n,
                             const leaf_column *column, const T *src, ptrdiff_t rs, const T *w,
                             ptrdiff_t ws, VEC bias, T *dst, ptrdiff_t dst_rs, ptrdiff_t share,
                             leaf_ahead *ahead) {
    ptrdiff_t j = 0;
    if (vecs > 1)
        for (; j + vecs * VL <= cols; j += vecs * VL)
            NAME(taps_tile)(rows, vecs, n, column, src + j, rs, VL, w, ws, bias, dst + j, dst_rs);
    for (; j < cols; j += VL) {
        if (j + VL > cols) j = cols - VL;
        NAME(taps_tile)(rows, 1, n, column, src + j, rs, 0, w, ws, bias, dst + j, dst_rs);
        NAME(taps_ahead)(&ahead->read, &ahead->read_bytes, share, 0);
        NAME(taps_ahead)(&ahead->write, &ahead->write_bytes, share, 1);
    }
}

#define TAPS_CASE(rows, vecs)                                                                    \
    case rows:                                                                                   \
        NAME(taps_strip)(rows, vecs, cols, n, column, src, rs, w, ws, bias, dst, dst_rs, share,  \
                         ahead);                                                                 \
        return;

static void NAME(taps_some)(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t n, const leaf_column *column,
                            const T *src, ptrdiff_t rs, const T *w, ptrdiff_t ws, VEC bias, T *dst,
                            ptrdiff_t dst_rs, ptrdiff_t share, leaf_ahead *ahead) {
    switch (rows) {
        TAPS_CASE(1, 8)
        TAPS_CASE(2, 4)
        TAPS_CASE(3, 3)
        TAPS_CASE(4, 2)
        TAPS_CASE(5, 1)
        TAPS_CASE(6, 1)
        TAPS_CASE(7, 1)
        TAPS_CASE(8, 1)
        TAPS_CASE(9, 1)
    }
}
#undef TAPS_CASE

/* Columns of three taps in one chain, by far the most usual: nothing is asked at each of them, and
 * tiles are two vectors wide, for multiply-adds of a line not to wait for those of the one before.
 * The second vector is `gap` elements after the first.
 *   AVX2, 6 rows: 12 accumulators + 3 weights + 1 of a line = 16 of 16 registers */
#define TAPS_WIDE 6
#define TAPS_NARROW 8
#define TAPS_LEAST 4

INLINE void NAME(taps_block)(const int three, const int rows, const int vecs, ptrdiff_t n,
                             const leaf_column *column, const T *src, ptrdiff_t rs, ptrdiff_t gap,
                             const T *w, ptrdiff_t ws, VEC bias, T *dst, ptrdiff_t dst_rs) {
    VEC acc[TAPS_TALL][8];
    UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int v = 0; v < vecs; ++v) acc[r][v] = VZERO();
    if (three) {
        UNROLL for (int c = 0; c < 3; ++c)
            NAME(taps_column)(3, rows, vecs, src + column[c].src, rs, gap, w + column[c].weight, ws,
                              acc);
    } else {
        for (const leaf_column *end = column + n; column < end; ++column)
            NAME(taps_column)(3, rows, vecs, src + column->src, rs, gap, w + column->weight, ws,
                              acc);
    }
    UNROLL for (int r = 0; r < rows; ++r) UNROLL for (int v = 0; v < vecs; ++v)
        VSTORE(dst + r * dst_rs + v * gap, VADD(bias, acc[r][v]));
}

INLINE void NAME(taps_blocks)(const int three, const int rows, ptrdiff_t cols, ptrdiff_t n,
                              const leaf_column *column, const T *src, ptrdiff_t rs, const T *w,
                              ptrdiff_t ws, VEC bias, T *dst, ptrdiff_t dst_rs, ptrdiff_t share,
                              leaf_ahead *ahead) {
    ptrdiff_t j = 0;
    if (rows <= TAPS_WIDE)
        for (; j + VL < cols; j += 2 * VL) {
            NAME(taps_block)(three, rows, 2, n, column, src + j, rs,
                             j + 2 * VL <= cols ? VL : cols - VL - j, w, ws, bias, dst + j, dst_rs);
            if (share > 0) {
                NAME(taps_ahead)(&ahead->read, &ahead->read_bytes, 2 * share, 0);
                NAME(taps_ahead)(&ahead->write, &ahead->write_bytes, 2 * share, 1);
            }
        }
    for (; j < cols; j += VL) {
        if (j + VL > cols) j = cols - VL;
        NAME(taps_block)(three, rows, 1, n, column, src + j, rs, 0, w, ws, bias, dst + j, dst_rs);
        if (share > 0) {
            NAME(taps_ahead)(&ahead->read, &ahead->read_bytes, share, 0);
            NAME(taps_ahead)(&ahead->write, &ahead->write_bytes, share, 1);
        }
    }
}

#define TAPS_CASE(rows)                                                                           \
    case rows:                                                                                    \
        if (n == 3)                                                                               \
            NAME(taps_blocks)(1, rows, cols, n, column, src, rs, w, ws, bias, dst, dst_rs, share, \
                              ahead);                                                             \
        else                                                                                      \
            NAME(taps_blocks)(0, rows, cols, n, column, src, rs, w, ws, bias, dst, dst_rs, share, \
                              ahead);                                                             \
        return;

static void NAME(taps_threes)(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t n,
                              const leaf_column *column, const T *src, ptrdiff_t rs, const T *w,
                              ptrdiff_t ws, VEC bias, T *dst, ptrdiff_t dst_rs, ptrdiff_t share,
                              leaf_ahead *ahead) {
    switch (rows) {
        TAPS_CASE(4)
        TAPS_CASE(5)
        TAPS_CASE(6)
        TAPS_CASE(7)
        TAPS_CASE(8)
    }
}
#undef TAPS_CASE

/* Shares of 64 bytes and more, of so many tiles. */
INLINE ptrdiff_t NAME(taps_share)(const leaf_ahead *ahead, ptrdiff_t tiles) {
    const ptrdiff_t most =
        ahead->read_bytes > ahead->write_bytes ? ahead->read_bytes : ahead->write_bytes;
    return most > 0 ? (most / tiles + 64) & ~(ptrdiff_t)63 : 0;
}

/* A single row of single taps, by up to eight vectors: alike many, as few of them would wait for their
 * own multiply-adds.  Chains as in `taps_tile`. */
INLINE void NAME(taps_few)(const int vecs, const leaf_column *column, const leaf_column *end,
                           const T *src, const T *w, VEC bias, T *dst) {
    T total[TAPS_MOST * VL];
    int chains = 0;
    VEC acc[TAPS_MOST];
    for (;;) {
        const ptrdiff_t chain = column->chain;
        UNROLL for (int v = 0; v < vecs; ++v) acc[v] = VZERO();
        for (; column < end && column->chain == chain; ++column) {
            const T *x = src + column->src;
            VEC wv = VSET1(w[column->weight]);
            VKEEP(wv);
            UNROLL for (int v = 0; v < vecs; ++v) acc[v] = VFMA(wv, VLOAD(x + v * VL), acc[v]);
        }
        if (chains > 0)
            UNROLL for (int v = 0; v < vecs; ++v) acc[v] = VADD(VLOAD(total + v * VL), acc[v]);
        if (column == end) break;
        UNROLL for (int v = 0; v < vecs; ++v) VSTORE(total + v * VL, acc[v]);
        ++chains;
    }
    UNROLL for (int v = 0; v < vecs; ++v) VSTORE(dst + v * VL, VADD(bias, acc[v]));
}

#define TAPS_CASE(vecs)                                                                          \
    case vecs: NAME(taps_few)(vecs, column, end, src, w, bias, dst); break;

static void NAME(taps_run)(ptrdiff_t vecs, ptrdiff_t n, const leaf_column *column, const T *src,
                           const T *w, VEC bias, T *dst) {
    const leaf_column *end = column + n;
    for (ptrdiff_t pieces = (vecs + TAPS_MOST - 1) / TAPS_MOST; pieces > 0; --pieces) {
        const ptrdiff_t some = (vecs + pieces - 1) / pieces;
        switch (some) {
            TAPS_CASE(1)
            TAPS_CASE(2)
            TAPS_CASE(3)
            TAPS_CASE(4)
            TAPS_CASE(5)
            TAPS_CASE(6)
            TAPS_CASE(7)
            TAPS_CASE(8)
        }
        src += some * VL;
        dst += some * VL;
        vecs -= some;
    }
}
#undef TAPS_CASE

static void NAME(taps)(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t n, const leaf_column *column,
                       const void *src_, ptrdiff_t src_rs, const void *w, ptrdiff_t ws,
                       const void *bias_, void *dst_, ptrdiff_t dst_rs, const leaf_ahead *ahead_) {
    const T *src = src_;
    T *dst = dst_;
    const VEC bias = VSET1(*(const T *)bias_);
    const leaf_column *last = column + n - 1;
    const int threes = rows >= TAPS_LEAST && n > 0 && column->taps == 3 && last->taps == 3
                       && column->chain == last->chain;
    const ptrdiff_t width = cols >= VL ? cols : VL;
    ptrdiff_t pieces, some, share;
    leaf_ahead ahead = {0, 0, 0, 0};
    if (ahead_ != 0) ahead = *ahead_;
    if (rows == 1 && cols >= VL && n >= TAPS_MANY && column->taps == 1
        && ahead.read_bytes + ahead.write_bytes == 0) {
        NAME(taps_run)(cols / VL, n, column, src, w, bias, dst);
        if (cols % VL > 0) NAME(taps_run)(1, n, column, src + cols - VL, w, bias, dst + cols - VL);
        return;
    }
    if (!threes)
        pieces = (rows + TAPS_TALL - 1) / TAPS_TALL;
    else if (cols > VL)
        pieces = (rows + TAPS_WIDE - 1) / TAPS_WIDE;
    else
        pieces = (rows + TAPS_NARROW - 1) / TAPS_NARROW;
    share = NAME(taps_share)(&ahead, pieces * ((width + VL - 1) / VL));
    some = pieces > 1 ? (rows + pieces - 1) / pieces : rows; /* no tile is much shorter */
    while (rows > 0) {
        T tile[TAPS_TALL * VL];
        T *to = cols >= VL ? dst : tile;
        const ptrdiff_t pitch = cols >= VL ? dst_rs : VL;
        if (some > rows) {
            const ptrdiff_t again = threes && rows < TAPS_LEAST ? TAPS_LEAST - rows : 0;
            some = rows + again; /* some rows of the tile before are made once more */
            src -= again * src_rs;
            dst -= again * dst_rs;
            to -= cols >= VL ? again * dst_rs : 0;
            rows += again;
        }
        if (threes)
            NAME(taps_threes)(some, width, n, column, src, src_rs, w, ws, bias, to, pitch, share,
                              &ahead);
        else
            NAME(taps_some)(some, width, n, column, src, src_rs, w, ws, bias, to, pitch, share,
                            &ahead);
        if (cols < VL)
            for (ptrdiff_t r = 0; r < some; ++r)
                NAME(copy_row)(dst + r * dst_rs, tile + r * VL, cols);
        src += some * src_rs;
        dst += some * dst_rs;
        rows -= some;
    }
}
#undef TAPS_TALL
#undef TAPS_MOST
#undef TAPS_MANY
#undef TAPS_WIDE
#undef TAPS_NARROW
#undef TAPS_LEAST
