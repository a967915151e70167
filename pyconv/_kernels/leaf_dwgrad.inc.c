/* Sums of products of two images, tap by tap: what gradients of weights of few channels are made of.
 * Included by leaf.inc.c, for each instruction set and compute type. */

/* ---- dots: taps that meet lines one step apart share what is loaded of a line -----------------
 *   per line: one vector of g, `count` of the source, taps * count multiply-adds into registers
 *   AVX2, 3 taps of 3 columns: 9 accumulators + 3 of g + 1 of a line = 13 of 16 registers */
INLINE void NAME(dots_line)(const int taps, const int count, const int first, const int last,
                            const T *const *from, ptrdiff_t at, const VEC *gv, VEC *sum) {
    UNROLL for (int j = 0; j < count; ++j) {
        VEC x = VLOAD(from[j] + at);
        if (taps > 1) VKEEP(x);
        UNROLL for (int k = 0; k < taps; ++k)
            if (first <= k && k <= last) sum[j * taps + k] = VFMA(gv[k], x, sum[j * taps + k]);
    }
}

INLINE void NAME(dots_tile)(const int taps, const int count, ptrdiff_t rows, ptrdiff_t strips,
                            ptrdiff_t each, const leaf_column *column, const T *src,
                            ptrdiff_t src_rs, ptrdiff_t src_cs, const T *g, ptrdiff_t g_rs,
                            ptrdiff_t g_cs, T *acc, ptrdiff_t acc_ts, ptrdiff_t ws) {
    const T *from[9];
    UNROLL for (int j = 0; j < count; ++j) from[j] = src + column[j].src;
    for (ptrdiff_t s = 0; s < strips;) {
        VEC sum[10], gv[LEAF_DOTS_TAPS];
        UNROLL for (int t = 0; t < taps * count; ++t) sum[t] = VZERO();
        for (const ptrdiff_t end = strips - s < each ? strips : s + each; s < end; ++s) {
            const T *gs = g + s * g_cs;
            ptrdiff_t at = s * src_cs;
            UNROLL for (int i = 0; i < taps - 1; ++i) { /* lines that not all taps meet */
                UNROLL for (int k = i; k > 0; --k) gv[k] = gv[k - 1];
                gv[0] = VLOAD(gs);
                NAME(dots_line)(taps, count, 0, i, from, at, gv, sum);
                gs += g_rs;
                at += src_rs;
            }
            for (ptrdiff_t r = taps - 1; r < rows; ++r) {
                UNROLL for (int k = taps - 1; k > 0; --k) gv[k] = gv[k - 1];
                gv[0] = VLOAD(gs);
                NAME(dots_line)(taps, count, 0, taps - 1, from, at, gv, sum);
                gs += g_rs;
                at += src_rs;
            }
            UNROLL for (int i = 1; i < taps; ++i) {
                UNROLL for (int k = taps - 1; k >= i; --k) gv[k] = gv[k - 1];
                NAME(dots_line)(taps, count, i, taps - 1, from, at, gv, sum);
                at += src_rs;
            }
        }
        UNROLL for (int j = 0; j < count; ++j) UNROLL for (int k = 0; k < taps; ++k) {
            T *to = acc + (column[j].weight + k * ws) * acc_ts;
            VSTORE(to, VADD(VLOAD(to), sum[j * taps + k]));
        }
    }
}

#define DOTS_CASE(taps, count)                                                                   \
    case 16 * taps + count:                                                                      \
        NAME(dots_tile)(taps, count, rows, strips, each, column, src, src_rs, src_cs, g, g_rs,   \
                        g_cs, acc, acc_ts, ws);                                                  \
        return;

static void NAME(dots_columns)(ptrdiff_t taps, ptrdiff_t count, ptrdiff_t rows, ptrdiff_t strips,
                               ptrdiff_t each, const leaf_column *column, const T *src,
                               ptrdiff_t src_rs, ptrdiff_t src_cs, const T *g, ptrdiff_t g_rs,
                               ptrdiff_t g_cs, T *acc, ptrdiff_t acc_ts, ptrdiff_t ws) {
    switch (16 * taps + count) {
        DOTS_CASE(1, 1)
        DOTS_CASE(1, 2)
        DOTS_CASE(1, 3)
        DOTS_CASE(1, 4)
        DOTS_CASE(1, 5)
        DOTS_CASE(1, 6)
        DOTS_CASE(1, 7)
        DOTS_CASE(1, 8)
        DOTS_CASE(1, 9)
        DOTS_CASE(2, 1)
        DOTS_CASE(2, 2)
        DOTS_CASE(2, 3)
        DOTS_CASE(2, 4)
        DOTS_CASE(2, 5)
        DOTS_CASE(3, 1)
        DOTS_CASE(3, 2)
        DOTS_CASE(3, 3)
        default: return;
    }
}
#undef DOTS_CASE

static void NAME(dots)(ptrdiff_t rows, ptrdiff_t strips, ptrdiff_t lanes, ptrdiff_t last,
                       ptrdiff_t columns, const leaf_column *column, const void *src_,
                       ptrdiff_t src_rs, ptrdiff_t src_cs, const void *g_, ptrdiff_t g_rs,
                       ptrdiff_t g_cs, void *acc_, ptrdiff_t acc_ts, ptrdiff_t ws) {
    static const int most[4] = {0, 9, 5, 3};
    const T *src = src_, *g = g_;
    T *acc = acc_;
    const ptrdiff_t each = rows < LEAF_CHAIN ? LEAF_CHAIN / rows : 1;
    for (ptrdiff_t i = 0; i < columns;) {
        const ptrdiff_t taps = column[i].taps;
        ptrdiff_t count = 1;
        while (i + count < columns && column[i + count].taps == taps) ++count;
        ptrdiff_t pieces = (count + most[taps] - 1) / most[taps];
        for (; pieces > 0; --pieces) {
            const ptrdiff_t some = (count + pieces - 1) / pieces;
            for (ptrdiff_t v = 0; v < lanes; v += VL) {
                const ptrdiff_t n = v < last ? strips : strips - 1;
                if (rows >= taps) {
                    NAME(dots_columns)(taps, some, rows, n, each, column + i, src + v, src_rs,
                                       src_cs, g + v, g_rs, g_cs, acc + v, acc_ts, ws);
                    continue;
                }
                for (ptrdiff_t j = i; j < i + some; ++j)
                    for (ptrdiff_t k = 0; k < taps; ++k)
                        NAME(dots_columns)(1, 1, rows, n, each, column + j, src + v + k * src_rs,
                                           src_rs, src_cs, g + v, g_rs, g_cs,
                                           acc + v + k * ws * acc_ts, acc_ts, ws);
            }
            i += some;
            count -= some;
        }
    }
}

/* Element by element, in the same order: for what `dots` may not read beyond the last strip. */
static void NAME(dots_exact)(ptrdiff_t rows, ptrdiff_t strips, ptrdiff_t lanes, ptrdiff_t last,
                             ptrdiff_t columns, const leaf_column *column, const void *src_,
                             ptrdiff_t src_rs, ptrdiff_t src_cs, const void *g_, ptrdiff_t g_rs,
                             ptrdiff_t g_cs, void *acc_, ptrdiff_t acc_ts, ptrdiff_t ws) {
    const ptrdiff_t each = rows < LEAF_CHAIN ? LEAF_CHAIN / rows : 1;
    for (; columns > 0; --columns, ++column)
        for (ptrdiff_t k = 0; k < column->taps; ++k)
            for (ptrdiff_t lane = 0; lane < lanes; ++lane) {
                const T *src = (const T *)src_ + column->src + k * src_rs + lane;
                const T *g = (const T *)g_ + lane;
                T *acc = (T *)acc_ + (column->weight + k * ws) * acc_ts + lane;
                const ptrdiff_t n = lane < last ? strips : strips - 1;
                for (ptrdiff_t s = 0; s < n;) {
                    T sum = 0;
                    for (const ptrdiff_t end = n - s < each ? n : s + each; s < end; ++s)
                        for (ptrdiff_t r = 0; r < rows; ++r)
                            sum = SFMA(g[r * g_rs + s * g_cs], src[r * src_rs + s * src_cs], sum);
                    *acc += sum;
                }
            }
}

/* ---- fold: neighbours of LEAF_LANE_BYTES added until one is left -------------------------------
 * In place, front to back: what a pass writes has been read before. */
static void NAME(fold)(ptrdiff_t count, void *acc_) {
    T *acc = acc_;
    for (ptrdiff_t n = count * LANES / 2; n >= count; n /= 2) {
        ptrdiff_t j = 0;
        for (; j + VL <= n; j += VL) {
            VEC a = VLOAD(acc + 2 * j), b = VLOAD(acc + 2 * j + VL);
            VSTORE(acc + j, VADD(VINORDER(VLANEEVEN(a, b)), VINORDER(VLANEODD(a, b))));
        }
        for (; j < n; ++j) acc[j] = acc[2 * j] + acc[2 * j + 1];
    }
}
