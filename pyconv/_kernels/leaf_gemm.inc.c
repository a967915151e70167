/* Some rows of A by panels of B, and whole blocks of rows one after another.
 * Included by leaf.inc.c, for whole vectors of columns (WIDTH(op) is Vop) and, where there are such,
 * for half a vector (Hop), as functions GEMM(name).  `nv` is how many. */
INLINE void NAME(GEMM(block))(const int rows, const int nv, ptrdiff_t n, ptrdiff_t k, const T *a,
                              ptrdiff_t a_rs, ptrdiff_t a_ks, const T *b, ptrdiff_t b_ks,
                              const int table, const ptrdiff_t *b_at, const int ahead, T *c,
                              ptrdiff_t c_rs, const T *bias, int add, leaf_soon *soon) {
    enum { AHEAD = 4096 / sizeof(T) }; /* of packed rows: the next blocks come from far away */
    WIDTH(EC) acc[MR * NV];
    UNROLL for (int i = 0; i < rows; ++i) UNROLL for (int v = 0; v < nv; ++v)
        acc[i * nv + v] = WIDTH(ZERO)();
    /* c is on its way while the sums are made: a row beside each of the first depths, or at once,
     * and then that of the next panel where B is read in place: few depths are soon done */
#ifdef VFMAS
    const int spread = 0;
#else
    const int spread = rows == MR;
#endif
    const T *coming = table && !spread ? c + NR : c;
    if (!spread || k < MR)
        UNROLL for (int i = 0; i < rows; ++i) {
            __builtin_prefetch(coming + i * c_rs, 1);
            __builtin_prefetch(coming + i * c_rs + nv * WIDTH(L) - 1, 1);
        }

    const char *next = (const char *)a; /* what is asked for beside a depth */
    ptrdiff_t step = 0;
    if (!table && soon && soon->rows > 0) next = NAME(take_soon)(soon, k, &step);
#ifdef VFMAS
    /* Four depths each time round: with one, counters and pointers take as many instructions as
     * half of the multiply-adds, which shows as soon as anything else uses the core. */
    if (nv == 2 && (a_ks == MR || a_ks == 1))
        for (; k >= 4; k -= 4) {
            UNROLL for (int d = 0; d < 4; ++d) {
                const T *row = table ? b : b + d * b_ks;
                const ptrdiff_t at = table ? b_at[d] : 0;
                if (ahead) __builtin_prefetch(row + at + 2 * NR - 1);
                if (a_ks == MR && d % 2 == 0) __builtin_prefetch(a + d * MR + AHEAD);
                VEC bv[2];
                if (table) {
                    VLOAD_AT(bv[0], row, at, 0);
                    VLOAD_AT(bv[1], row, at, VL);
                } else {
                    bv[0] = VLOAD(row);
                    bv[1] = VLOAD(row + VL);
                }
                UNROLL for (int i = 0; i < rows; ++i)
                    VFMAS(2, acc + i * nv, bv, a[i * a_rs + d * a_ks]);
            }
            if (!table) __builtin_prefetch(next, 0, 2);
            next += 4 * step;
            a += 4 * a_ks;
            b += 4 * b_ks;
            if (table) b_at += 4;
        }
#endif
    UNROLL for (int first = spread; first >= 0; --first) {
        ptrdiff_t depths = first ? (k < MR ? 0 : MR) : k;
        k -= depths;
        for (; depths > 0; --depths) {
            if (first) {
                __builtin_prefetch(coming, 1);
                __builtin_prefetch(coming + nv * WIDTH(L) - 1, 1);
                coming += c_rs;
            }
            const T *row = table ? b + *b_at++ : b;
            if (ahead) __builtin_prefetch(row + 2 * NR - 1); /* the next panel */
            if (a_ks == MR) ASK_FOR(a + AHEAD, MR);
            if (!table) __builtin_prefetch(next, 0, 2);
            next += step;
            WIDTH(EC) bv[NV];
            UNROLL for (int v = 0; v < nv; ++v) bv[v] = WIDTH(LOAD)(row + v * WIDTH(L));
            if (1 < rows && rows < 5) /* compilers would load them for each row */
                UNROLL for (int v = 0; v < nv; ++v) VKEEP(bv[v]);
            UNROLL for (int i = 0; i < rows; ++i) {
                WIDTH(EC) av = WIDTH(SET1)(a[i * a_rs]);
                UNROLL for (int v = 0; v < nv; ++v)
                    acc[i * nv + v] = WIDTH(FMA)(av, bv[v], acc[i * nv + v]);
            }
            a += a_ks;
            b += b_ks;
        }
    }

    if (n == nv * WIDTH(L)) {
        UNROLL for (int i = 0; i < rows; ++i) {
            T *row = c + i * c_rs;
            WIDTH(EC) start = WIDTH(SET1)(bias && !add ? bias[i] : (T)0);
            UNROLL for (int v = 0; v < nv; ++v) {
                WIDTH(EC) base = add ? WIDTH(LOAD)(row + v * WIDTH(L)) : start;
                WIDTH(STORE)(row + v * WIDTH(L), WIDTH(ADDTO)(base, acc[i * nv + v]));
            }
        }
        return;
    }
    T tile[MR][NR];
    UNROLL for (int i = 0; i < rows; ++i) UNROLL for (int v = 0; v < nv; ++v)
        WIDTH(STORE)(&tile[i][v * WIDTH(L)], acc[i * nv + v]);
    for (int i = 0; i < rows; ++i)
        NAME(add_rest)(n, tile[i], c + i * c_rs, bias && !add ? bias[i] : (T)0, add);
}

/* One specialised body per row count; whole blocks of rows one after another. */
#define GEMM_BODY(rows, ahead) \
    NAME(GEMM(block))(rows, nv, n, k, a, a_rs, a_ks, b, b_ks, table, b_at, ahead, c, c_rs, bias, \
                      add, soon)

#define GEMM_CASE(rows)         \
    case rows:                  \
        GEMM_BODY(rows, table); \
        return;

INLINE void NAME(GEMM(panel))(const int nv, ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const T *a,
                              const ptrdiff_t a_rs, const ptrdiff_t a_ks, ptrdiff_t a_panel,
                              const T *b, ptrdiff_t b_ks, const int table, const ptrdiff_t *b_at,
                              T *c, ptrdiff_t c_rs, const T *bias, int add, leaf_soon *soon) {
    int first = table; /* while it is at it, inputs that lie apart come nearer */
    for (; m >= MR; m -= MR) {
        if (first)
            GEMM_BODY(MR, 1);
        else
            GEMM_BODY(MR, 0);
        first = 0;
        a += a_panel;
        c += MR * c_rs;
        if (bias) bias += MR;
    }
    switch (m) {
        GEMM_CASE(1)
        GEMM_CASE(2)
        GEMM_CASE(3)
#if MR > 4
        GEMM_CASE(4)
        GEMM_CASE(5)
#endif
#if MR > 6
        GEMM_CASE(6)
        GEMM_CASE(7)
        GEMM_CASE(8)
        GEMM_CASE(9)
        GEMM_CASE(10)
        GEMM_CASE(11)
        GEMM_CASE(12)
        GEMM_CASE(13)
#endif
        default: return;
    }
}
#undef GEMM_CASE
#undef GEMM_BODY
