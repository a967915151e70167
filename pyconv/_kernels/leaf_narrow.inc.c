/* Some rows of A by one vector of columns of B: up to two blocks of MR rows.
 * Included by leaf.inc.c, for whole vectors (WIDTH(op) is Vop) and, where there are such, for half
 * ones (Hop), as a function NARROW. */
INLINE void NAME(NARROW)(const int rows, const int more, ptrdiff_t k, const T *a, const T *a_more,
                         const T *b, ptrdiff_t b_ks, T *c, ptrdiff_t c_rs, int add) {
    enum { AHEAD = 8192 / sizeof(T) }; /* as in gemm_rows; two row blocks are read at once here */
    WIDTH(EC) acc[2 * MR];
    UNROLL for (int i = 0; i < rows; ++i) acc[i] = WIDTH(ZERO)();
    UNROLL for (int i = 0; i < more; ++i) acc[MR + i] = WIDTH(ZERO)();
    for (; k > 0; --k) {
        WIDTH(EC) bv = WIDTH(LOAD)(b);
        if (MR > 6) { /* a depth is most of a cache line; with fewer rows it costs more than it saves */
            ASK_FOR(a + AHEAD, MR);
            if (more) ASK_FOR(a_more + AHEAD, MR);
        }
        UNROLL for (int i = 0; i < rows; ++i)
            acc[i] = WIDTH(FMA)(WIDTH(SET1)(a[i]), bv, acc[i]);
        UNROLL for (int i = 0; i < more; ++i)
            acc[MR + i] = WIDTH(FMA)(WIDTH(SET1)(a_more[i]), bv, acc[MR + i]);
        a += MR;
        a_more += MR;
        b += b_ks;
    }
    UNROLL for (int i = 0; i < rows; ++i)
        WIDTH(STORE)(c + i * c_rs,
                     WIDTH(ADDTO)(add ? WIDTH(LOAD)(c + i * c_rs) : WIDTH(ZERO)(), acc[i]));
    c += MR * c_rs;
    UNROLL for (int i = 0; i < more; ++i)
        WIDTH(STORE)(c + i * c_rs,
                     WIDTH(ADDTO)(add ? WIDTH(LOAD)(c + i * c_rs) : WIDTH(ZERO)(), acc[MR + i]));
}
