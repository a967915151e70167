/* The leaf kernels themselves, written once; leaf.h states what each computes.
 *
 * Compiled per instruction set and compute type by leaf_isa.inc.c, with the vector vocabulary of
 * leaf_simd.h.  Loops whose bound is a compile-time constant (rows of a tile, vectors of a row)
 * are unrolled completely, so that accumulator arrays become registers. */

#define NAME(x) LEAF_CAT(x, LEAF_NAME, LEAF_TYPE)
#define NR (NV * VL)
/* The cache lines of some elements from p on, one in each 64 bytes. */
#define ASK_FOR(p, elements)                                                                      \
    UNROLL for (size_t at_ = 0; at_ < (elements) * sizeof(T); at_ += 64)                          \
        __builtin_prefetch((const char *)(p) + at_)
#define LINE_VECS (64 / sizeof(VEC) > 0 ? (int)(64 / sizeof(VEC)) : 1)
#define LANES ((ptrdiff_t)(LEAF_LANE_BYTES / sizeof(T)))
#define LANE_VECS ((int)(LEAF_LANE_BYTES / sizeof(T)) / VL)
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* Four elements, wherever they are aligned as one is.  Their order is changed by QSHUFFLE, of two at
 * a time: compilers load what is written as a list one by one. */
typedef T NAME(quad) __attribute__((vector_size(4 * sizeof(T)), aligned(sizeof(T)), may_alias));

/* ---- what is needed soon, a few cache lines beside each tile --------------------------------- */

/* Goes on by some bytes; the next row is due when those of one are done. */
INLINE void NAME(pass_by)(leaf_soon *soon, ptrdiff_t bytes) {
    soon->done += bytes;
    if (soon->done < soon->bytes) return;
    soon->done = 0;
    soon->at += soon->step;
    --soon->rows;
}

/* Those of a tile of k depths, all of one row: from where, and the step from each depth to the next.
 * Spread that evenly they hold up nothing. */
INLINE const char *NAME(take_soon)(leaf_soon *soon, ptrdiff_t k, ptrdiff_t *step) {
    const char *at = soon->at + soon->done;
    const ptrdiff_t left = soon->bytes - soon->done, most = soon->each * 64;
    *step = ((most < left ? most : left) + k - 1) / k;
    NAME(pass_by)(soon, most);
    return at;
}

/* Those of a tile at once, to be written. */
INLINE void NAME(ask_soon)(leaf_soon *soon) {
    for (ptrdiff_t lines = soon->each; lines > 0 && soon->rows > 0; --lines) {
        __builtin_prefetch(soon->at + soon->done, 1);
        NAME(pass_by)(soon, 64);
    }
}

/* ---- gemm ------------------------------------------------------------------------------------
 *   per k:  NV vectors of b, `rows` broadcasts of a, rows * NV multiply-adds into registers
 *   AVX2 6x16: 12 accumulators + 2 of b + 1 broadcast = 15 of 16 registers; four depths each time
 *   round, as VFMAS, for compilers run out of registers when they unroll them
 *   AVX-512 14x32: 28 + 2 + 1 = 31 of 32;  NEON 6x16: 24 + 4 + 1 = 29 of 32
 */

/* c[0 .. n-1] = (add ? c : start) + sum: what is not whole vectors of a row. */
INLINE void NAME(add_rest)(ptrdiff_t n, const T *sum, T *c, T start, int add) {
    ptrdiff_t j = 0;
    for (; j + VL <= n; j += VL)
        VSTORE(c + j, VADDTO(add ? VLOAD(c + j) : VSET1(start), VLOAD(sum + j)));
    for (; j < n; ++j) c[j] = SADDTO(add ? c[j] : start, sum[j]);
}

#define WIDTH(op) V##op
#define GEMM(name) gemm_##name
#include "leaf_gemm.inc.c"
#undef WIDTH
#undef GEMM
#ifdef HEC
#define WIDTH(op) H##op
#define GEMM(name) gemm_half_##name
#include "leaf_gemm.inc.c"
#undef WIDTH
#undef GEMM
#endif

/* Panels of B one after another, with A packed or in rows, half a panel, and half a vector.  A
 * function each: compilers take much longer over one that does everything. */
#define GEMM_PARAMETERS                                                                            \
    ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const T *a, ptrdiff_t a_rs, const T *b, ptrdiff_t b_ks, \
        ptrdiff_t b_ps, const ptrdiff_t *b_at, T *c, ptrdiff_t c_rs, const T *bias, int add,       \
        leaf_soon *soon
#define GEMM_WAY(way, panel, nv, table, rs, ks)                                                  \
    static NOINLINE void NAME(way)(GEMM_PARAMETERS) {                                            \
        (void)a_rs, (void)b_ks, (void)b_at;                                                      \
        for (; n > 0; n -= NR, b += b_ps, c += NR)                                               \
            NAME(panel)(nv, m, n < NR ? n : NR, k, a, rs, ks, (ks) == 1 ? MR * (rs) : MR * k, b, \
                        b_ks, table, b_at, c, c_rs, bias, add, soon);                            \
    }
GEMM_WAY(packed, gemm_panel, NV, 0, 1, MR)
GEMM_WAY(packed_half, gemm_panel, NV / 2, 0, 1, MR)
GEMM_WAY(in_rows, gemm_panel, NV, 0, a_rs, 1)
GEMM_WAY(packed_at, gemm_panel, NV, 1, 1, MR)
GEMM_WAY(packed_half_at, gemm_panel, NV / 2, 1, 1, MR)
GEMM_WAY(in_rows_at, gemm_panel, NV, 1, a_rs, 1)
#ifdef HEC
GEMM_WAY(packed_few, gemm_half_panel, 1, 0, 1, MR)
GEMM_WAY(packed_few_at, gemm_half_panel, 1, 1, 1, MR)
#define FEW_WAY(way) NAME(way)
#else
#define FEW_WAY(way) NULL
#endif

/* Depths to read at once: those in the first FEW places of more than SOME, far from each other, for
 * memory to be read in order. */
INLINE ptrdiff_t NAME(depths_together)(ptrdiff_t k, const ptrdiff_t *b_at) {
    enum { FEW = 8, SOME = 16, APART = 4096 / sizeof(T) };
    ptrdiff_t places = 1, few = k;
    for (ptrdiff_t d = 1; d < k; ++d) {
        const ptrdiff_t step = b_at[d] - b_at[d - 1];
        if (-APART <= step && step <= APART) continue;
        if (places == FEW) few = d;
        if (++places > SOME) return few;
    }
    return k;
}

/* A few rows, of as many columns at once as keep the pipelines busy: a step.  Sums that do not end
 * with these depths, or that others have begun, are in `part`. */
INLINE void NAME(wide_step)(const int rows, const int nv, int begins, int ends, ptrdiff_t k,
                            const T *a, const ptrdiff_t a_rs, const ptrdiff_t a_ks, const T *b,
                            const ptrdiff_t *b_at, T *part, const ptrdiff_t part_rs, T *c,
                            ptrdiff_t c_rs, const T *bias, int add) {
    VEC acc[MR * NV];
    UNROLL for (int i = 0; i < rows; ++i) UNROLL for (int v = 0; v < nv; ++v)
        acc[i * nv + v] = begins ? VZERO() : VLOAD(part + i * part_rs + v * VL);
    for (; k > 0; --k) {
        const T *row = b + *b_at++;
        VEC av[MR];
        ASK_FOR(row + (nv + LINE_VECS) * VL - 1, nv * VL); /* the next step's */
        UNROLL for (int i = 0; i < rows; ++i) av[i] = VSET1(a[i * a_rs]);
        UNROLL for (int v = 0; v < nv; ++v) { /* there are not registers for all of b */
            VEC bv = VLOAD(row + v * VL);
            if (rows > 1) VKEEP(bv);
            UNROLL for (int i = 0; i < rows; ++i)
                acc[i * nv + v] = VFMA(av[i], bv, acc[i * nv + v]);
        }
        a += a_ks;
    }
    UNROLL for (int i = 0; i < rows; ++i) {
        VEC start = VSET1(bias && !add ? bias[i] : (T)0);
        UNROLL for (int v = 0; v < nv; ++v) {
            T *to = c + i * c_rs + v * VL;
            if (ends)
                VSTORE(to, VADDTO(add ? VLOAD(to) : start, acc[i * nv + v]));
            else
                VSTORE(part + i * part_rs + v * VL, acc[i * nv + v]);
        }
    }
}

#define GEMM_WIDE(way, rows, rs, ks)                                                             \
    static NOINLINE void NAME(way##_##rows)(GEMM_PARAMETERS) {                                   \
        enum { WIDE = LEAF_WIDE(rows, MR) * NR };                                                \
        enum { MOST = LEAF_LONG / sizeof(T) / rows / WIDE * WIDE };                              \
        T part[rows * MOST];                                                                     \
        (void)m, (void)a_rs, (void)b_ks, (void)b_ps;                                             \
        for (; n > 0; n -= MOST, b += MOST, c += MOST) {                                         \
            ptrdiff_t d = 0, depths;                                                             \
            do {                                                                                 \
                depths = NAME(depths_together)(k - d, b_at + d);                                 \
                for (ptrdiff_t j = 0; j < MOST && j < n; j += WIDE)                              \
                    NAME(wide_step)(rows, WIDE / VL, d == 0, d + depths == k, depths,            \
                                    a + d * (ks), rs, ks, b + j, b_at + d, part + j, MOST,       \
                                    c + j, c_rs, bias, add);                                     \
                d += depths;                                                                     \
            } while (d < k);                                                                     \
        }                                                                                        \
    }
GEMM_WIDE(packed_wide, 1, 1, MR)
GEMM_WIDE(packed_wide, 2, 1, MR)
GEMM_WIDE(packed_wide, 3, 1, MR)
GEMM_WIDE(in_rows_wide, 1, a_rs, 1)
GEMM_WIDE(in_rows_wide, 2, a_rs, 1)
GEMM_WIDE(in_rows_wide, 3, a_rs, 1)
typedef void NAME(gemm_way)(GEMM_PARAMETERS);
static NAME(gemm_way) *const NAME(wide_ways)[2][3] = {
    {NAME(packed_wide_1), NAME(packed_wide_2), NAME(packed_wide_3)},
    {NAME(in_rows_wide_1), NAME(in_rows_wide_2), NAME(in_rows_wide_3)},
};
#undef GEMM_WIDE
#undef GEMM_WAY

/* The ways of a matrix A that is packed, by how many columns they take, and of one in rows. */
typedef struct {
    NAME(gemm_way) *panels, *half, *few, *rows;
} NAME(gemm_ways);
static const NAME(gemm_ways) NAME(in_order) = {NAME(packed), NAME(packed_half), FEW_WAY(packed_few),
                                               NAME(in_rows)};
static const NAME(gemm_ways) NAME(by_table) = {NAME(packed_at), NAME(packed_half_at),
                                               FEW_WAY(packed_few_at), NAME(in_rows_at)};

/* Whole panels, and of one that is left no more than half of it, half a vector, or both; these beside
 * whole ones alone, as they read A once more.  Rows that lie in memory have no way for a part. */
INLINE void NAME(gemm_columns)(const NAME(gemm_ways) *ways, GEMM_PARAMETERS) {
    const ptrdiff_t few = ways->few && (n > NR || n <= NR / 2) ? VL / 2 : 0, rest = n % NR;
    const ptrdiff_t last = 0 < rest % (NR / 2) && rest % (NR / 2) <= few ? rest % (NR / 2) : 0;
    const ptrdiff_t half = 0 < rest - last && rest - last <= NR / 2 ? rest - last : 0;
    const ptrdiff_t whole = n - half - last;
    if (a_rs != 0) {
        ways->rows(m, n, k, a, a_rs, b, b_ks, b_ps, b_at, c, c_rs, bias, add, soon);
        return;
    }
    if (whole > 0) ways->panels(m, whole, k, a, 0, b, b_ks, b_ps, b_at, c, c_rs, bias, add, soon);
    b += whole / NR * b_ps;
    c += whole;
    if (half > 0) ways->half(m, half, k, a, 0, b, b_ks, b_ps, b_at, c, c_rs, bias, add, soon);
    if (last > 0)
        ways->few(m, last, k, a, 0, b + half, b_ks, b_ps, b_at, c + half, c_rs, bias, add,
                  soon);
}

static void NAME(gemm)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const void *a, ptrdiff_t a_rs,
                       const void *b, ptrdiff_t b_ks, ptrdiff_t b_ps, void *c, ptrdiff_t c_rs,
                       const void *bias, int add, leaf_soon *soon) {
    NAME(gemm_columns)(&NAME(in_order), m, n, k, a, a_rs, b, b_ks, b_ps, NULL, c, c_rs, bias, add,
                       soon);
}

static void NAME(gemm_at)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const void *a_, ptrdiff_t a_rs,
                          const void *b_, const ptrdiff_t *b_at, void *c_, ptrdiff_t c_rs,
                          const void *bias_, int add) {
    const T *a = a_, *b = b_, *bias = bias_;
    T *c = c_;
    const ptrdiff_t few = m % MR, wide = few > 0 && few <= 3 ? n - n % (LEAF_WIDE(few, MR) * NR) : 0;
    if (wide > 0) { /* the few rows beside whole blocks by themselves, of more columns at once */
        if (m > few)
            NAME(gemm_columns)(&NAME(by_table), m - few, n, k, a, a_rs, b, 0, NR, b_at, c, c_rs,
                               bias, add, NULL);
        a += (m - few) * (a_rs != 0 ? a_rs : k);
        c += (m - few) * c_rs;
        if (bias) bias += m - few;
        NAME(wide_ways)[a_rs != 0][few - 1](few, wide, k, a, a_rs, b, 0, 0, b_at, c, c_rs, bias, add,
                                            NULL);
        m = few;
        b += wide;
        c += wide;
        n -= wide;
    }
    if (n > 0)
        NAME(gemm_columns)(&NAME(by_table), m, n, k, a, a_rs, b, 0, NR, b_at, c, c_rs, bias, add,
                           NULL);
}
#undef GEMM_PARAMETERS
#undef FEW_WAY

/* One vector of columns, or half of one: twice the rows, for as many chains of multiply-adds.
 *   AVX2 12x8: 12 accumulators + 1 of b + 1 broadcast = 14 of 16 registers */
#define WIDTH(op) V##op
#define NARROW gemm_narrow_rows
#include "leaf_narrow.inc.c"
#undef WIDTH
#undef NARROW
#ifdef HEC
#define WIDTH(op) H##op
#define NARROW gemm_narrow_half
#include "leaf_narrow.inc.c"
#undef WIDTH
#undef NARROW
#define HALF_NARROW gemm_narrow_half
#else
#define HALF_NARROW gemm_narrow_rows /* not asked for */
#endif

#define NARROW_CASE(m)                                                                         \
    case m:                                                                                    \
        if (half)                                                                              \
            NAME(HALF_NARROW)((m) < MR ? (m) : MR, (m) < MR ? 0 : (m) - MR, k, a, a + block,   \
                              b, b_ks, c, c_rs, add);                                          \
        else                                                                                   \
            NAME(gemm_narrow_rows)((m) < MR ? (m) : MR, (m) < MR ? 0 : (m) - MR, k, a,         \
                                   a + block, b, b_ks, c, c_rs, add);                          \
        return;
#define NARROW_CASES(m) NARROW_CASE(m) NARROW_CASE(m + 1) NARROW_CASE(m + 2) NARROW_CASE(m + 3)

INLINE void NAME(gemm_narrow_of)(const int half, ptrdiff_t m, ptrdiff_t k, const T *a,
                                 ptrdiff_t block, const T *b, ptrdiff_t b_ks, T *c,
                                 ptrdiff_t c_rs, int add) {
    switch (m) {
        NARROW_CASES(1)
        NARROW_CASES(5)
#if MR > 4
        NARROW_CASES(9)
#endif
#if MR > 6
        NARROW_CASES(13)
        NARROW_CASES(17)
        NARROW_CASES(21)
        NARROW_CASES(25)
#endif
        default: return;
    }
}
#undef NARROW_CASES
#undef NARROW_CASE
#undef HALF_NARROW

static void NAME(gemm_narrow)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const void *a,
                              ptrdiff_t block, const void *b, ptrdiff_t b_ks, void *c,
                              ptrdiff_t c_rs, int add) {
#ifdef HEC
    if (2 * n <= VL) {
        NAME(gemm_narrow_of)(1, m, k, a, block, b, b_ks, c, c_rs, add);
        return;
    }
#endif
    (void)n;
    NAME(gemm_narrow_of)(0, m, k, a, block, b, b_ks, c, c_rs, add);
}

/* ---- gemm_lanes: rows of A in lanes, pixels of B broadcast ------------------------------------
 * A panel has 1, 2 or 3 halves of NR rows, and the fewer pixels at a time the more it has, for the
 * accumulators to fit:
 *   AVX2 6 pixels of 2 halves: 12 accumulators + 2 of a + 1 broadcast = 15 of 16 registers
 * `some`: 1 if results have places of their own, 2 if besides only some depths are wanted.  `run`: 3
 * if depths lie in threes, each next to the one before; else 1.
 */

/* Depth number `first`, or so many after it where those are next to each other. */
#define LANE_DEPTH(first, next)                                                                \
    {                                                                                          \
        const ptrdiff_t depth = first, at = b_at[depth];                                       \
        VEC av[3];                                                                             \
        UNROLL for (int v = 0; v < nv; ++v)                                                    \
            av[v] = VLOAD(a + ((depth + (next)) * nv + v) * VL);                               \
        UNROLL for (int i = 0; i < pixels; ++i)                                                \
            VFMAS_AT(nv, acc + i * nv, av, from[i], at, next);                                 \
    }

INLINE void NAME(lane_pixels)(const int pixels, const int nv, const int some, ptrdiff_t k,
                              const ptrdiff_t run, const T *a, const int32_t *which, const T *b,
                              const ptrdiff_t *b_at, const ptrdiff_t *pixel,
                              const ptrdiff_t *place, T *c, const T *bias, int add) {
    const T *from[LANE_PIXELS(1)];
    VEC acc[LANE_PIXELS(1) * 3 * NV];
    UNROLL for (int i = 0; i < pixels; ++i) {
        from[i] = b + pixel[i];
        UNROLL for (int v = 0; v < nv; ++v) acc[i * nv + v] = VZERO();
    }
#ifdef VFMAS /* some depths each time round, as in gemm_rows */
    if (run % 3 == 0) {
        for (ptrdiff_t rounds = k / 6; rounds > 0; --rounds) {
            LANE_DEPTH(0, 0)
            LANE_DEPTH(0, 1)
            LANE_DEPTH(0, 2)
            LANE_DEPTH(3, 0)
            LANE_DEPTH(3, 1)
            LANE_DEPTH(3, 2)
            a += 6 * nv * VL;
            b_at += 6;
        }
        k %= 6;
    }
    for (ptrdiff_t rounds = k / 4; rounds > 0; --rounds) {
        UNROLL for (int d = 0; d < 4; ++d) LANE_DEPTH(some > 1 ? which[d] : d, 0)
        if (some > 1) {
            which += 4;
            continue;
        }
        a += 4 * nv * VL;
        b_at += 4;
    }
    k %= 4;
#endif
    for (; k > 0; --k) {
        const ptrdiff_t depth = some > 1 ? *which++ : 0, at = b_at[depth];
        VEC av[3 * NV / 2];
        UNROLL for (int v = 0; v < nv; ++v) av[v] = VLOAD(a + (depth * nv + v) * VL);
        if (pixels > 1) UNROLL for (int v = 0; v < nv; ++v) VKEEP(av[v]);
        UNROLL for (int i = 0; i < pixels; ++i) {
            VEC bv = VSET1(from[i][at]);
            UNROLL for (int v = 0; v < nv; ++v)
                acc[i * nv + v] = VFMA(av[v], bv, acc[i * nv + v]);
        }
        if (some > 1) continue;
        a += nv * VL;
        ++b_at;
    }
    UNROLL for (int i = 0; i < pixels; ++i) UNROLL for (int v = 0; v < nv; ++v) {
        T *to = c + ((some ? place[i] : i) * nv + v) * VL;
        VEC start = bias ? VLOAD(bias + v * VL) : VZERO();
        VSTORE(to, VADDTO(add ? VLOAD(to) : start, acc[i * nv + v]));
    }
}

#undef LANE_DEPTH

#define LANE_CASE(pixels)                                                                      \
    case pixels:                                                                               \
        if ((pixels) <= LANE_PIXELS(halves))                                                   \
            NAME(lane_pixels)((pixels) <= LANE_PIXELS(halves) ? (pixels) : 1, nv, some, k,     \
                              run, a, which, b, b_at, pixel, place, c, bias, add);             \
        break;

/* Blocks of about as many pixels each: a few left alone would not keep the pipelines busy. */
INLINE void NAME(lane_panel)(const int halves, const int some, ptrdiff_t n, ptrdiff_t k,
                             const ptrdiff_t run, const T *a, const int32_t *which, const T *b,
                             const ptrdiff_t *b_at, const ptrdiff_t *pixel,
                             const ptrdiff_t *place, T *c, const T *bias, int add,
                             leaf_soon *soon) {
    enum { LINE = 64 / sizeof(T) };
    const int nv = halves * NV / 2;
    ptrdiff_t blocks = (n + LANE_PIXELS(halves) - 1) / LANE_PIXELS(halves);
    const ptrdiff_t each = n / blocks;
    const T *next = a + k * nv * VL;    /* the next panel, part by part */
    const ptrdiff_t part = some > 1 ? 0 : (k * nv * VL + LINE * blocks - 1) / (LINE * blocks);
    for (ptrdiff_t larger = n % blocks; blocks > 0; --blocks, --larger) {
        const ptrdiff_t pixels = each + (larger > 0);
        for (ptrdiff_t i = 0; i < part; ++i, next += LINE) __builtin_prefetch(next, 0, 2);
        if (soon) NAME(ask_soon)(soon);
        switch (pixels) {
            LANE_CASE(1)
            LANE_CASE(2)
            LANE_CASE(3)
            LANE_CASE(4)
            LANE_CASE(5)
            LANE_CASE(6)
            LANE_CASE(7)
            LANE_CASE(8)
            default: break;
        }
        pixel += pixels;
        if (some)
            place += pixels;
        else
            c += pixels * nv * VL;
    }
}
#undef LANE_CASE

INLINE void NAME(lanes_of)(const int some, ptrdiff_t lanes, ptrdiff_t n, ptrdiff_t k,
                           const ptrdiff_t run, const T *a, const int32_t *which, const T *b,
                           const ptrdiff_t *b_at, const ptrdiff_t *pixel, const ptrdiff_t *place,
                           T *c, const T *bias, int add, leaf_soon *soon) {
    if (lanes == NR / 2)
        NAME(lane_panel)(1, some, n, k, run, a, which, b, b_at, pixel, place, c, bias, add, soon);
    else if (lanes == NR)
        NAME(lane_panel)(2, some, n, k, run, a, which, b, b_at, pixel, place, c, bias, add, soon);
    else
        NAME(lane_panel)(3, some, n, k, run, a, which, b, b_at, pixel, place, c, bias, add, soon);
}

static void NAME(gemm_lanes)(ptrdiff_t lanes, ptrdiff_t n, ptrdiff_t k, ptrdiff_t run,
                             const void *a, const void *b, const ptrdiff_t *b_at,
                             const ptrdiff_t *pixel, void *c, const void *bias, int add,
                             leaf_soon *soon) {
#ifdef VFMAS
    if (run % 3 == 0) {
        NAME(lanes_of)(0, lanes, n, k, 3, a, NULL, b, b_at, pixel, NULL, c, bias, add, soon);
        return;
    }
#endif
    (void)run;
    NAME(lanes_of)(0, lanes, n, k, 1, a, NULL, b, b_at, pixel, NULL, c, bias, add, soon);
}

static void NAME(gemm_some)(ptrdiff_t lanes, ptrdiff_t n, ptrdiff_t k, const void *a,
                            const int32_t *which, const void *b, const ptrdiff_t *b_at,
                            const ptrdiff_t *pixel, const ptrdiff_t *place, void *c,
                            const void *bias, int add, leaf_soon *soon) {
    if (k > 0 && which[k - 1] == k - 1) /* all of them */
        NAME(lanes_of)(1, lanes, n, k, 1, a, which, b, b_at, pixel, place, c, bias, add, soon);
    else
        NAME(lanes_of)(2, lanes, n, k, 1, a, which, b, b_at, pixel, place, c, bias, add, soon);
}

/* ---- gemm_even: the same of depths next to each other, and pixels evenly apart, as few of both ------
 * No pointers are read, and nothing but the multiply-adds is done for a depth. */
INLINE void NAME(even_pixels)(const int pixels, const int nv, ptrdiff_t k, const T *a, const T *b,
                              ptrdiff_t b_ps, T *c, int add) {
    const T *from[(LANE_PIXELS(1) + 2) / 3]; /* of three pixels, the others are 1 and 2 b_ps away */
    VEC acc[LANE_PIXELS(1) * 3 * NV];
    UNROLL for (int i = 0; i < pixels; i += 3) from[i / 3] = b + i * b_ps;
    UNROLL for (int i = 0; i < pixels * nv; ++i) acc[i] = VZERO();
#ifdef VFMAS /* four depths each time round, as in gemm_rows */
    for (ptrdiff_t rounds = k / 4; rounds > 0; --rounds) {
        UNROLL for (int d = 0; d < 4; ++d) {
            VEC av[3];
            UNROLL for (int v = 0; v < nv; ++v) av[v] = VLOAD(a + (d * nv + v) * VL);
            UNROLL for (int i = 0; i < pixels; ++i)
                VFMAS(nv, acc + i * nv, av, from[i / 3][i % 3 * b_ps + d]);
        }
        a += 4 * nv * VL;
        UNROLL for (int i = 0; i < pixels; i += 3) from[i / 3] += 4;
    }
    k %= 4;
#endif
    for (ptrdiff_t d = 0; d < k; ++d) {
        VEC av[3 * NV / 2];
        UNROLL for (int v = 0; v < nv; ++v) av[v] = VLOAD(a + v * VL);
        if (pixels > 1) UNROLL for (int v = 0; v < nv; ++v) VKEEP(av[v]);
        UNROLL for (int i = 0; i < pixels; ++i) {
            VEC bv = VSET1(from[i / 3][i % 3 * b_ps + d]);
            UNROLL for (int v = 0; v < nv; ++v)
                acc[i * nv + v] = VFMA(av[v], bv, acc[i * nv + v]);
        }
        a += nv * VL;
    }
    UNROLL for (int i = 0; i < pixels * nv; ++i)
        VSTORE(c + i * VL, add ? VADD(VLOAD(c + i * VL), acc[i]) : acc[i]);
}

#define EVEN_CASE(pixels)                                                                        \
    case pixels:                                                                                 \
        if ((pixels) <= LANE_PIXELS(halves))                                                     \
            NAME(even_pixels)((pixels) <= LANE_PIXELS(halves) ? (pixels) : 1, nv, k, a, b, b_ps, \
                              c, add);                                                           \
        break;

INLINE void NAME(even_panel)(const int halves, ptrdiff_t n, ptrdiff_t k, const T *a, const T *b,
                             ptrdiff_t b_ps, T *c, int add) {
    const int nv = halves * NV / 2;
    ptrdiff_t blocks = (n + LANE_PIXELS(halves) - 1) / LANE_PIXELS(halves);
    const ptrdiff_t each = n / blocks;
    for (ptrdiff_t larger = n % blocks; blocks > 0; --blocks, --larger) {
        const ptrdiff_t pixels = each + (larger > 0);
        switch (pixels) {
            EVEN_CASE(1)
            EVEN_CASE(2)
            EVEN_CASE(3)
            EVEN_CASE(4)
            EVEN_CASE(5)
            EVEN_CASE(6)
            EVEN_CASE(7)
            EVEN_CASE(8)
            default: break;
        }
        b += pixels * b_ps;
        c += pixels * nv * VL;
    }
}
#undef EVEN_CASE

static void NAME(gemm_even)(ptrdiff_t lanes, ptrdiff_t n, ptrdiff_t k, const void *a,
                            const void *b, ptrdiff_t b_ps, void *c, int add) {
    if (lanes == NR / 2)
        NAME(even_panel)(1, n, k, a, b, b_ps, c, add);
    else if (lanes == NR)
        NAME(even_panel)(2, n, k, a, b, b_ps, c, add);
    else
        NAME(even_panel)(3, n, k, a, b, b_ps, c, add);
}

/* ---- Winograd along one axis -----------------------------------------------------------------
 * m outputs of n = m + r - 1 inputs, with r taps and n products, by interpolation at n - 1 points p
 * and infinity.  With M(x) the product of all x - p, and p' the other points:
 *
 *   Bt   a row for each point: the coefficients of M(x) / (x - p); then those of M(x)
 *   G    the row  1 p p^2 .. p^(r-1)  over the product of all p - p'; then  0 .. 0 1
 *   At   the column  1 p p^2 .. p^(m-1); then  0 .. 0 1
 *
 * so that Bt follows from n alone.  n = 4: 0, +-1; n = 5: 0, +-a, 2; n = 6: 0, +-a, +-b, with
 * a = 1/sqrt(2) and b = sqrt(2), which lose least to rounding.  n = 1 is an axis without taps.
 *
 * n > 6: stride 2, with 3 or 4 taps.  Inputs 0, 2, .. meet taps 0 and 2, inputs 1, 3, .. taps 1 and
 * 3, at stride 1: n counts the places of both, one after another.  Tap 1 alone is multiplied as it
 * is: the m rows of G for it are equal, and only the first is kept. */
#define WINOGRAD_A 0.70710678118654752440
#define WINOGRAD_B 1.41421356237309504880
#define WINOGRAD_C 2
#define WINOGRAD_MOST 10

/* inputs n */
#define WINOGRAD_INPUTS(X) X(1) X(4) X(5) X(6) X(7) X(8) X(9) X(10)
/* inputs 0, 2, .. if there are others at stride 2, whether all of these are met by one tap, and
 * rows of G that differ */
#define WINOGRAD_EVEN(n) (((n) + 1) / 2)
#define WINOGRAD_LONE(n) ((n) > 6 && (n) % 2)
#define WINOGRAD_DISTINCT(n) (WINOGRAD_LONE(n) ? WINOGRAD_EVEN(n) + 1 : (n))
/* inputs n, outputs m, taps r, stride */
#define WINOGRAD_AXES(X)                                                                         \
    X(1, 1, 1, 1)                                                                                \
    X(4, 2, 3, 1) X(4, 3, 2, 1)                                                                  \
    X(5, 3, 3, 1) X(5, 4, 2, 1)                                                                  \
    X(6, 2, 5, 1) X(6, 3, 4, 1) X(6, 4, 3, 1) X(6, 5, 2, 1)
#define WINOGRAD_STRIDED(X) X(7, 3, 3, 2) X(8, 3, 4, 2) X(9, 4, 3, 2) X(10, 4, 4, 2)

/* y = Bt x at stride 1, for each lane */
INLINE void NAME(winograd_b1)(const int n, const VEC *x, VEC *y) {
    const VEC less = VSET1((T)-1), a = VSET1((T)WINOGRAD_A), b = VSET1((T)WINOGRAD_B);
    if (n == 1) {
        y[0] = x[0];
    } else if (n == 4) {
        y[0] = VFMA(less, x[2], x[0]);
        y[1] = VADD(x[1], x[2]);
        y[2] = VFMA(less, x[1], x[2]);
        y[3] = VFMA(less, x[1], x[3]);
    } else if (n == 5) {
        VEC minus = VSET1((T)-WINOGRAD_C), half = VSET1((T)-0.5), z[4];
        UNROLL for (int i = 0; i < 4; ++i) z[i] = VFMA(minus, x[i], x[i + 1]);
        y[0] = VFMA(half, z[0], z[2]);
        y[1] = VFMA(a, z[1], z[2]);
        y[2] = VFMA(VSET1((T)-WINOGRAD_A), z[1], z[2]);
        y[3] = VFMA(half, x[1], x[3]);
        y[4] = VFMA(half, z[1], z[3]);
    } else {
        VEC even = VFMA(VSET1((T)-2), x[2], x[4]), odd = VFMA(VSET1((T)-2), x[1], x[3]);
        y[0] = VFMA(VSET1((T)-2.5), x[2], VADD(x[0], x[4]));
        y[1] = VFMA(a, odd, even);
        y[2] = VFMA(VSET1((T)-WINOGRAD_A), odd, even);
        even = VFMA(VSET1((T)-0.5), x[2], x[4]);
        odd = VFMA(VSET1((T)-0.5), x[1], x[3]);
        y[3] = VFMA(b, odd, even);
        y[4] = VFMA(VSET1((T)-WINOGRAD_B), odd, even);
        y[5] = VFMA(VSET1((T)-2.5), x[3], VADD(x[1], x[5]));
    }
}

INLINE void NAME(winograd_b)(const int n, const VEC *x, VEC *y) {
    const int even = WINOGRAD_EVEN(n), odd = n / 2;
    if (n <= 6) {
        NAME(winograd_b1)(n, x, y);
        return;
    }
    VEC z[WINOGRAD_EVEN(WINOGRAD_MOST)];
    UNROLL for (int i = 0; i < even; ++i) z[i] = x[2 * i];
    NAME(winograd_b1)(even, z, y);
    UNROLL for (int i = 0; i < odd; ++i) z[i] = x[2 * i + 1];
    if (WINOGRAD_LONE(n))
        UNROLL for (int i = 0; i < odd; ++i) y[even + i] = z[i];
    else
        NAME(winograd_b1)(odd, z, y + even);
}

/* p^i */
INLINE double NAME(power)(const double p, const int i) {
    double power = 1;
    UNROLL for (int j = 0; j < i; ++j) power *= p;
    return power;
}

/* y = At x at stride 1, for each lane */
INLINE void NAME(winograd_a1)(const int n, const int m, const VEC *x, VEC *y) {
    if (n == 1) {
        y[0] = x[0];
        return;
    }
    const VEC sum = VADD(x[1], x[2]), difference = VFMA(VSET1((T)-1), x[2], x[1]);
    VEC outer[2] = {VZERO(), VZERO()};
    if (n == 6) outer[0] = VADD(x[3], x[4]), outer[1] = VFMA(VSET1((T)-1), x[4], x[3]);
    y[0] = VADD(x[0], sum);
    if (n == 6) y[0] = VADD(y[0], outer[0]);
    if (n == 5) y[0] = VADD(y[0], x[3]);
    UNROLL for (int i = 1; i < m; ++i) {
        const VEC inner = i % 2 ? difference : sum;
        y[i] = i == m - 1 ? x[n - 1] : VZERO();
        if (n == 4) {
            y[i] = i == m - 1 ? VADD(inner, y[i]) : inner;
            continue;
        }
        y[i] = VFMA(VSET1((T)NAME(power)(WINOGRAD_A, i)), inner, y[i]);
        if (n == 5)
            y[i] = VFMA(VSET1((T)NAME(power)(WINOGRAD_C, i)), x[3], y[i]);
        else
            y[i] = VFMA(VSET1((T)NAME(power)(WINOGRAD_B, i)), outer[i % 2], y[i]);
    }
}

INLINE void NAME(winograd_a)(const int n, const int m, const VEC *x, VEC *y) {
    const int even = WINOGRAD_EVEN(n);
    if (n <= 6) {
        NAME(winograd_a1)(n, m, x, y);
    } else if (WINOGRAD_LONE(n)) {
        NAME(winograd_a1)(even, m, x, y);
        UNROLL for (int i = 0; i < m; ++i) y[i] = VADD(y[i], x[even + i]);
    } else {
        VEC z[WINOGRAD_EVEN(WINOGRAD_MOST)];
        UNROLL for (int i = 0; i < even; ++i) z[i] = VADD(x[i], x[even + i]);
        NAME(winograd_a1)(even, m, z, y);
    }
}

/* A vector of n < VL elements, then zeros. */
INLINE VEC NAME(load_few)(const T *p, ptrdiff_t n) {
#ifdef VLOADFEW
    return VLOADFEW(p, n);
#else
    T own[VL] = {0};
    for (ptrdiff_t i = 0; i < n; ++i) own[i] = p[i];
    return VLOAD(own);
#endif
}

/* The last vector ends where the columns do, and may overlap the one before it. */
INLINE void NAME(winograd_rows)(const int n, ptrdiff_t cols, const void *const *src, void *dst_,
                                ptrdiff_t rs) {
    const T *row[WINOGRAD_MOST];
    T *dst = dst_;
    UNROLL for (int i = 0; i < n; ++i) row[i] = src[i];
    if (cols < VL) { /* zeros beyond them */
        VEC x[WINOGRAD_MOST], y[WINOGRAD_MOST];
        UNROLL for (int i = 0; i < n; ++i) x[i] = NAME(load_few)(row[i], cols);
        NAME(winograd_b)(n, x, y);
        UNROLL for (int i = 0; i < n; ++i) VSTORE(dst + i * rs, y[i]);
        return;
    }
    for (ptrdiff_t j = 0;;) {
        VEC x[WINOGRAD_MOST], y[WINOGRAD_MOST];
        UNROLL for (int i = 0; i < n; ++i) x[i] = VLOAD(row[i] + j);
        NAME(winograd_b)(n, x, y);
        UNROLL for (int i = 0; i < n; ++i) VSTORE(dst + i * rs + j, y[i]);
        if (j + VL >= cols) return;
        j = j + 2 * VL <= cols ? j + VL : cols - VL;
    }
}

/* x[i] = column i of the tiles whose first columns are at src + at[0], at[1], ...: a lane holds
 * some columns of a tile, and is transposed with those of its neighbours. */
INLINE void NAME(tile_columns)(const int n, const T *src, const ptrdiff_t *at, VEC *x) {
    enum { LANE = 16 / sizeof(T) };
    UNROLL for (int i = 0; i < n; i += LANE) {
#ifdef LEAF_DOUBLE
        VEC a = VLANESAT(src + i, at, LANE), b = VLANESAT(src + i, at + 1, LANE);
        x[i] = VLANELOW(a, b);
        if (i + 1 < n) x[i + 1] = VLANEHIGH(a, b);
#else
        VEC a = VLANESAT(src + i, at, LANE), b = VLANESAT(src + i, at + 1, LANE);
        VEC c = VLANESAT(src + i, at + 2, LANE), d = VLANESAT(src + i, at + 3, LANE);
        VEC even = VLANELOW(a, c), odd = VLANELOW(b, d);
        x[i] = VLANELOW(even, odd);
        if (i + 1 < n) x[i + 1] = VLANEHIGH(even, odd);
        even = VLANEHIGH(a, c);
        odd = VLANEHIGH(b, d);
        if (i + 2 < n) x[i + 2] = VLANELOW(even, odd);
        if (i + 3 < n) x[i + 3] = VLANEHIGH(even, odd);
#endif
    }
}

INLINE void NAME(winograd_columns)(const int n, ptrdiff_t tiles, ptrdiff_t lines, const void *src,
                                   ptrdiff_t rs, const ptrdiff_t *at, ptrdiff_t step, void *dst,
                                   ptrdiff_t fs) {
    for (ptrdiff_t t = 0; t < tiles; t += VL)
        for (ptrdiff_t i = 0; i < lines; ++i) {
            const T *row = (const T *)src + i * rs;
            T *to = (T *)dst + i * n * fs + t;
            VEC x[WINOGRAD_MOST + 1], y[WINOGRAD_MOST];
            if (at)
                NAME(tile_columns)(n, row, at + t, x);
            else
                UNROLL for (int j = 0; j < n; ++j) x[j] = VLOAD(row + t + j * step);
            NAME(winograd_b)(n, x, y);
            UNROLL for (int j = 0; j < n; ++j) VSTORE(to + j * fs, y[j]);
        }
}

#ifndef LEAF_DOUBLE
/* Four outputs of each tile. */
INLINE void NAME(store_four)(T *dst, const ptrdiff_t m, VEC a, VEC b, VEC c, VEC d) {
    VEC even = VLANELOW(a, c), odd = VLANELOW(b, d);
    VLANESTORE(dst, m * 4, VLANELOW(even, odd));
    VLANESTORE(dst + m, m * 4, VLANEHIGH(even, odd));
    even = VLANEHIGH(a, c);
    odd = VLANEHIGH(b, d);
    VLANESTORE(dst + 2 * m, m * 4, VLANELOW(even, odd));
    VLANESTORE(dst + 3 * m, m * 4, VLANEHIGH(even, odd));
}
#endif

/* A row of the outputs of some tiles, the tiles next to each other; and maybe the first output of
 * the next tile once more, or anything past the last. */
INLINE void NAME(store_tiles)(const int m, T *dst, const VEC *y) {
    if (m == 1) {
        VSTORE(dst, y[0]);
        return;
    }
#ifdef LEAF_DOUBLE
    UNROLL for (int i = 0; i < m; i += 2) {
        const int j = i < m - 1 ? i : m - 2;
        VLANESTORE(dst + j, m * 2, VLANELOW(y[j], y[j + 1]));
        VLANESTORE(dst + m + j, m * 2, VLANEHIGH(y[j], y[j + 1]));
    }
#else
    if (m == 2) {
        VLANESTORE(dst, m * 4, VLANELOW(y[0], y[1]));
        VLANESTORE(dst + 4, m * 4, VLANEHIGH(y[0], y[1]));
    } else if (m == 3) {
        NAME(store_four)(dst, m, y[0], y[1], y[2], VNEXT(y[0]));
    } else {
        NAME(store_four)(dst, m, y[0], y[1], y[2], y[3]);
        if (m == 5) NAME(store_four)(dst + 1, m, y[1], y[2], y[3], y[4]);
    }
#endif
}

INLINE void NAME(winograd_down)(const int n, const int m, ptrdiff_t tiles, ptrdiff_t lines,
                                const void *src, ptrdiff_t fs, void *dst, ptrdiff_t ds) {
    for (ptrdiff_t j = 0; j < lines; ++j)
        for (ptrdiff_t t = 0; t < tiles; t += VL) {
            VEC x[WINOGRAD_MOST], y[WINOGRAD_MOST];
            UNROLL for (int i = 0; i < n; ++i)
                x[i] = VLOAD((const T *)src + (lines * i + j) * fs + t);
            NAME(winograd_a)(n, m, x, y);
            UNROLL for (int i = 0; i < m; ++i) VSTORE((T *)dst + (lines * i + j) * ds + t, y[i]);
        }
}

INLINE void NAME(winograd_along)(const int n, const int m, ptrdiff_t tiles, ptrdiff_t lines,
                                 const void *src, ptrdiff_t fs, const void *bias_, int biases,
                                 void *dst_, ptrdiff_t rs, ptrdiff_t cs) {
    const T *bias = bias_;
    const VEC first = VSET1(*bias);
    for (ptrdiff_t i = 0; i < lines; ++i) {
        T *dst = (T *)dst_ + i * rs;
        for (ptrdiff_t t = 0; t < tiles; t += VL) {
            const VEC own = biases ? VLOAD(bias + t) : first;
            VEC x[WINOGRAD_MOST], y[WINOGRAD_MOST];
            UNROLL for (int j = 0; j < n; ++j) x[j] = VLOAD((const T *)src + (n * i + j) * fs + t);
            NAME(winograd_a)(n, m, x, y);
            UNROLL for (int j = 0; j < m; ++j) y[j] = VADD(own, y[j]);
            if (cs == 1)
                NAME(store_tiles)(m, dst + m * t, y);
            else
                UNROLL for (int j = 0; j < m; ++j) VSTORE(dst + j * cs + t, y[j]);
        }
    }
}

/* ---- its adjoint, for gradients of the weights, at stride 1:  G' (sum over tiles of Bt x * A g) ----- */

/* even = x[0] + p^2 x[2] + ..  odd = p x[1] + p^3 x[3] + .. */
INLINE void NAME(winograd_halves)(const int m, const double p, const VEC *x, VEC *even, VEC *odd) {
    *even = x[0];
    *odd = VZERO();
    UNROLL for (int i = 1; i < m; ++i) {
        VEC *half = i % 2 ? odd : even;
        *half = VFMA(VSET1((T)NAME(power)(p, i)), x[i], *half);
    }
}

/* y = A x, for each lane */
INLINE void NAME(winograd_lift)(const int n, const int m, const VEC *x, VEC *y) {
    const VEC less = VSET1((T)-1);
    VEC even, odd;
    y[0] = x[0];
    if (n == 1) return;
    y[n - 1] = x[m - 1];
    NAME(winograd_halves)(m, n == 4 ? 1 : WINOGRAD_A, x, &even, &odd);
    y[1] = VADD(even, odd);
    y[2] = VFMA(less, odd, even);
    if (n == 5) {
        NAME(winograd_halves)(m, WINOGRAD_C, x, &even, &odd);
        y[3] = VADD(even, odd);
    } else if (n == 6) {
        NAME(winograd_halves)(m, WINOGRAD_B, x, &even, &odd);
        y[3] = VADD(even, odd);
        y[4] = VFMA(less, odd, even);
    }
}

/* y[t] += p^t (scale x[0] + (-1)^t opposite x[1]) */
INLINE void NAME(winograd_unpoint)(const int r, const double p, const double scale,
                                   const double opposite, const VEC *x, VEC *y) {
    UNROLL for (int t = 0; t < r; ++t) {
        const double power = NAME(power)(p, t);
        y[t] = VFMA(VSET1((T)(power * scale)), x[0], y[t]);
        y[t] = VFMA(VSET1((T)(power * (t % 2 ? -opposite : opposite))), x[1], y[t]);
    }
}

/* y = Gt x, for each lane */
INLINE void NAME(winograd_fold)(const int n, const int r, const VEC *x, VEC *y) {
    y[0] = x[0];
    if (n == 1) return;
    UNROLL for (int t = 1; t < r; ++t) y[t] = t == r - 1 ? x[n - 1] : VZERO();
    if (n == 4) {
        NAME(winograd_unpoint)(r, 1, 0.5, 0.5, x + 1, y);
    } else if (n == 5) {
        NAME(winograd_unpoint)(r, WINOGRAD_A, 1 / (WINOGRAD_A - WINOGRAD_C),
                               -1 / (WINOGRAD_A + WINOGRAD_C), x + 1, y);
        UNROLL for (int t = 0; t < r; ++t)
            y[t] = VFMA(VSET1((T)(NAME(power)(WINOGRAD_C, t) / 7)), x[3], y[t]);
    } else {
        NAME(winograd_unpoint)(r, WINOGRAD_A, -2.0 / 3, -2.0 / 3, x + 1, y);
        NAME(winograd_unpoint)(r, WINOGRAD_B, 1.0 / 6, 1.0 / 6, x + 3, y);
    }
}

INLINE void NAME(winograd_lift_rows)(const int n, const int m, ptrdiff_t cols,
                                     const void *const *src, void *dst, ptrdiff_t rs) {
    for (ptrdiff_t j = 0; j < cols; j += VL) {
        VEC x[WINOGRAD_MOST], y[WINOGRAD_MOST];
        UNROLL for (int i = 0; i < m; ++i) x[i] = VLOAD((const T *)src[i] + j);
        NAME(winograd_lift)(n, m, x, y);
        UNROLL for (int i = 0; i < n; ++i) VSTORE((T *)dst + i * rs + j, y[i]);
    }
}

INLINE void NAME(winograd_lift_columns)(const int n, const int m, ptrdiff_t lanes,
                                        ptrdiff_t lines, const void *src, ptrdiff_t rs,
                                        ptrdiff_t step, void *dst, ptrdiff_t fs) {
    for (ptrdiff_t t = 0; t < lanes; t += VL)
        for (ptrdiff_t i = 0; i < lines; ++i) {
            VEC x[WINOGRAD_MOST], y[WINOGRAD_MOST];
            UNROLL for (int j = 0; j < m; ++j) x[j] = VLOAD((const T *)src + i * rs + j * step + t);
            NAME(winograd_lift)(n, m, x, y);
            UNROLL for (int j = 0; j < n; ++j) VSTORE((T *)dst + (i * n + j) * fs + t, y[j]);
        }
}

INLINE void NAME(winograd_fold_lines)(const int n, const int r, ptrdiff_t count, ptrdiff_t lines,
                                      const void *src, ptrdiff_t fs, void *dst, ptrdiff_t ds) {
    for (ptrdiff_t j = 0; j < lines; ++j)
        for (ptrdiff_t t = 0; t < count; t += VL) {
            VEC x[WINOGRAD_MOST], y[WINOGRAD_MOST];
            UNROLL for (int i = 0; i < n; ++i)
                x[i] = VLOAD((const T *)src + (lines * i + j) * fs + t);
            NAME(winograd_fold)(n, r, x, y);
            UNROLL for (int i = 0; i < r; ++i) VSTORE((T *)dst + (lines * i + j) * ds + t, y[i]);
        }
}

/* LEAF_KERNELS at a time, in double, whatever the compute type. */
typedef double NAME(four) __attribute__((vector_size(32), aligned(8), may_alias));

/* y = (w + p w' + p^2 w'' + ..) / scale, with p and then with -p */
INLINE void NAME(winograd_points)(const int r, const double p, const double scale,
                                  const double opposite, const NAME(four) * w, NAME(four) * y) {
    NAME(four) even = w[0], odd = p * w[1];
    UNROLL for (int t = 2; t < r; t += 2) even += NAME(power)(p, t) * w[t];
    UNROLL for (int t = 3; t < r; t += 2) odd += NAME(power)(p, t) * w[t];
    y[0] = scale * (even + odd);
    y[1] = opposite * (even - odd);
}

/* y = G w at stride 1 */
INLINE void NAME(winograd_g1)(const int n, const int r, const NAME(four) * w, NAME(four) * y) {
    y[0] = w[0];
    if (n == 1) return;
    y[n - 1] = w[r - 1];
    if (n == 4) {
        NAME(winograd_points)(r, 1, 0.5, 0.5, w, y + 1);
    } else if (n == 5) {
        NAME(winograd_points)(r, WINOGRAD_A, 1 / (WINOGRAD_A - WINOGRAD_C),
                              -1 / (WINOGRAD_A + WINOGRAD_C), w, y + 1);
        y[3] = w[0];
        UNROLL for (int t = 1; t < r; ++t) y[3] += NAME(power)(WINOGRAD_C, t) * w[t];
        y[3] *= 1.0 / 7;
    } else {
        NAME(winograd_points)(r, WINOGRAD_A, -2.0 / 3, -2.0 / 3, w, y + 1);
        NAME(winograd_points)(r, WINOGRAD_B, 1.0 / 6, 1.0 / 6, w, y + 3);
    }
}

INLINE void NAME(winograd_g)(const int n, const int r, const NAME(four) * w, NAME(four) * y) {
    const int even = WINOGRAD_EVEN(n);
    if (n <= 6) {
        NAME(winograd_g1)(n, r, w, y);
        return;
    }
    NAME(four) taps[2] = {w[0], w[2]};
    NAME(winograd_g1)(even, 2, taps, y);
    if (WINOGRAD_LONE(n)) {
        y[even] = w[1];
    } else {
        taps[0] = w[1], taps[1] = w[3];
        NAME(winograd_g1)(even, 2, taps, y + even);
    }
}

/* Along the first axis to doubles, along the last one to T: what follows in memory is then written by
 * one of the next calls, and is to be near by that time. */
INLINE void NAME(winograd_weights)(const int n, const int r, const int distinct, const int last,
                                   ptrdiff_t count, const double *src, ptrdiff_t ss, void *dst,
                                   ptrdiff_t ds) {
    enum { LINE = 64 / sizeof(T) };
    if (last)
        for (int i = 0; i < distinct; ++i)
            for (ptrdiff_t j = count; j < 2 * count; j += LINE)
                __builtin_prefetch((T *)dst + i * ds + j, 1, 2);
    for (ptrdiff_t v = 0; v < count; v += LEAF_KERNELS) {
        NAME(four) w[WINOGRAD_MOST], y[WINOGRAD_MOST];
        UNROLL for (int t = 0; t < r; ++t) w[t] = *(const NAME(four) *)(src + t * ss + v);
        NAME(winograd_g)(n, r, w, y);
        UNROLL for (int i = 0; i < distinct; ++i) {
            T *to = (T *)dst + i * ds + v;
            if (!last)
                *(NAME(four) *)((double *)dst + i * ds + v) = y[i];
            else if (v + LEAF_KERNELS <= count)
                *(NAME(quad) *)to = __builtin_convertvector(y[i], NAME(quad));
            else
                for (ptrdiff_t j = 0; j < count - v; ++j) to[j] = (T)y[i][j];
        }
    }
}

static void NAME(spread)(ptrdiff_t rows, ptrdiff_t width, ptrdiff_t depths, ptrdiff_t taps,
                         const void *src, ptrdiff_t ld, double *dst, ptrdiff_t ds) {
    for (ptrdiff_t k = 0; k < depths; ++k)
        for (ptrdiff_t j = 0; j < width; ++j) {
            const T *kernel = (const T *)src + j * ld + taps * k;
            double *to = dst + k * width + j;
            if (j < rows)
                for (ptrdiff_t t = 0; t < taps; ++t) to[t * ds] = kernel[t];
            else
                for (ptrdiff_t t = 0; t < taps; ++t) to[t * ds] = 0;
        }
}

#define WINOGRAD_AXIS(n)                                                                         \
    static void NAME(winograd_rows_##n)(ptrdiff_t cols, const void *const *src, void *dst,       \
                                        ptrdiff_t rs) {                                          \
        NAME(winograd_rows)(n, cols, src, dst, rs);                                              \
    }                                                                                            \
    static void NAME(winograd_columns_##n)(ptrdiff_t tiles, ptrdiff_t lines, const void *src,    \
                                           ptrdiff_t rs, const ptrdiff_t *at, ptrdiff_t step,    \
                                           void *dst, ptrdiff_t fs) {                            \
        NAME(winograd_columns)(n, tiles, lines, src, rs, at, step, dst, fs);                     \
    }
WINOGRAD_INPUTS(WINOGRAD_AXIS)
#undef WINOGRAD_AXIS

#define WINOGRAD_AXIS(n, m, r, stride)                                                           \
    static void NAME(winograd_down_##n##_##m)(ptrdiff_t tiles, ptrdiff_t lines, const void *src, \
                                              ptrdiff_t fs, void *dst, ptrdiff_t ds) {           \
        NAME(winograd_down)(n, m, tiles, lines, src, fs, dst, ds);                               \
    }                                                                                            \
    static void NAME(winograd_along_##n##_##m)(ptrdiff_t tiles, ptrdiff_t lines,                 \
                                               const void *src, ptrdiff_t fs, const void *bias,  \
                                               int biases, void *dst, ptrdiff_t rs,              \
                                               ptrdiff_t cs) {                                   \
        NAME(winograd_along)(n, m, tiles, lines, src, fs, bias, biases, dst, rs, cs);            \
    }                                                                                            \
    static void NAME(winograd_weights_##n##_##m)(ptrdiff_t count, const double *src,             \
                                                 ptrdiff_t ss, double *dst, ptrdiff_t ds) {      \
        NAME(winograd_weights)(n, r, WINOGRAD_DISTINCT(n), 0, count, src, ss, dst, ds);          \
    }                                                                                            \
    static void NAME(winograd_last_weights_##n##_##m)(ptrdiff_t count, const double *src,        \
                                                      ptrdiff_t ss, void *dst, ptrdiff_t ds) {   \
        NAME(winograd_weights)(n, r, WINOGRAD_DISTINCT(n), 1, count, src, ss, dst, ds);          \
    }
WINOGRAD_AXES(WINOGRAD_AXIS)
WINOGRAD_STRIDED(WINOGRAD_AXIS)
#undef WINOGRAD_AXIS

#define WINOGRAD_AXIS(n, m, r, stride)                                                           \
    static void NAME(winograd_lift_rows_##n##_##m)(ptrdiff_t cols, const void *const *src,       \
                                                   void *dst, ptrdiff_t rs) {                    \
        NAME(winograd_lift_rows)(n, m, cols, src, dst, rs);                                      \
    }                                                                                            \
    static void NAME(winograd_lift_columns_##n##_##m)(ptrdiff_t lanes, ptrdiff_t lines,          \
                                                      const void *src, ptrdiff_t rs,             \
                                                      ptrdiff_t step, void *dst,                 \
                                                      ptrdiff_t fs) {                            \
        NAME(winograd_lift_columns)(n, m, lanes, lines, src, rs, step, dst, fs);                 \
    }                                                                                            \
    static void NAME(winograd_fold_##n##_##m)(ptrdiff_t count, ptrdiff_t lines, const void *src, \
                                              ptrdiff_t fs, void *dst, ptrdiff_t ds) {           \
        NAME(winograd_fold_lines)(n, r, count, lines, src, fs, dst, ds);                         \
    }
WINOGRAD_AXES(WINOGRAD_AXIS)
#undef WINOGRAD_AXIS

#define WINOGRAD_AXIS(n, m, r, stride)                                                           \
    {stride, r, m, n, WINOGRAD_DISTINCT(n), NAME(winograd_rows_##n), NAME(winograd_columns_##n), \
     NAME(winograd_down_##n##_##m), NAME(winograd_along_##n##_##m),                              \
     NAME(winograd_weights_##n##_##m), NAME(winograd_last_weights_##n##_##m),                    \
     NAME(winograd_lift_rows_##n##_##m),                                                         \
     NAME(winograd_lift_columns_##n##_##m), NAME(winograd_fold_##n##_##m)},
#define WINOGRAD_OTHER(n, m, r, stride)                                                          \
    {stride, r, m, n, WINOGRAD_DISTINCT(n), NAME(winograd_rows_##n), NAME(winograd_columns_##n), \
     NAME(winograd_down_##n##_##m), NAME(winograd_along_##n##_##m),                              \
     NAME(winograd_weights_##n##_##m), NAME(winograd_last_weights_##n##_##m), 0, 0, 0},
static const leaf_winograd NAME(winograd_axes)[] = {
    WINOGRAD_AXES(WINOGRAD_AXIS) WINOGRAD_STRIDED(WINOGRAD_OTHER){0}};
#undef WINOGRAD_AXIS
#undef WINOGRAD_OTHER

/* ---- rows of the compute type as they are: most of what is packed ------------------------------
 * The last vector of a row ends where the row does, and may overlap the one before it. */
INLINE void NAME(copy_row)(T *dst, const T *src, ptrdiff_t n) {
    ptrdiff_t j = 0;
    if (n >= VL) {
        for (; j + VL <= n; j += VL) VSTORE(dst + j, VLOAD(src + j));
        if (j < n) VSTORE(dst + n - VL, VLOAD(src + n - VL));
    } else if (n >= 4) {
        for (; j + 4 <= n; j += 4) *(NAME(quad) *)(dst + j) = *(const NAME(quad) *)(src + j);
        *(NAME(quad) *)(dst + n - 4) = *(const NAME(quad) *)(src + n - 4);
    } else {
        if (n > 0) dst[0] = src[0];
        if (n > 1) dst[1] = src[1];
        if (n > 2) dst[2] = src[2];
    }
}

static void NAME(clear)(void *dst, ptrdiff_t dst_rs, ptrdiff_t rows, ptrdiff_t cols) {
    static const T zeros[256 / sizeof(T)];
    const ptrdiff_t most = 256 / sizeof(T);
    for (ptrdiff_t r = 0; r < rows; ++r)
        for (ptrdiff_t j = 0; j < cols; j += most)
            NAME(copy_row)((T *)dst + r * dst_rs + j, zeros, cols - j < most ? cols - j : most);
}

/* Rows shorter than a vector, and zeros after a row, are stored as one where what is too many is
 * overwritten by the rows that follow. */
static void NAME(pad)(ptrdiff_t planes, ptrdiff_t rows, ptrdiff_t cols, const void *src_,
                      ptrdiff_t src_ps, ptrdiff_t src_rs, void *dst_, ptrdiff_t dst_ps,
                      ptrdiff_t dst_rs, ptrdiff_t before, ptrdiff_t after) {
    const T *src = src_;
    T *dst = dst_;
    const ptrdiff_t gap = dst_rs - cols, reach = VL - cols; /* past the end of a row */
    ptrdiff_t vectors = 0;
    if (reach > 0 && src_rs > 0 && gap <= VL && (gap == 0 || dst_rs >= VL))
        vectors = rows - 1 - (reach + (src_rs < dst_rs ? src_rs : dst_rs) - 1) /
                                (src_rs < dst_rs ? src_rs : dst_rs);
    for (ptrdiff_t p = 0; p < planes; ++p, src += src_ps, dst += dst_ps) {
        const T *from = src;
        T *to = dst + before;
        ptrdiff_t r = 1;
        NAME(clear)(dst, 0, 1, before);
        for (; r <= vectors; ++r, from += src_rs, to += dst_rs) {
            VSTORE(to, VLOAD(from));
            if (gap > 0) VSTORE(to + cols, VZERO());
        }
        for (; r < rows; ++r, from += src_rs, to += dst_rs) {
            if (gap <= VL && dst_rs >= VL)
                VSTORE(to + cols, VZERO());
            else
                NAME(clear)(to + cols, 0, 1, gap);
            NAME(copy_row)(to, from, cols);
        }
        NAME(copy_row)(to, from, cols);
        NAME(clear)(to + cols, 0, 1, after);
    }
}

/* Every second element of 2 VL, the first or the second ones. */
INLINE VEC NAME(every_second)(const T *src, const int second) {
    enum { LANE = 16 / sizeof(T) };
    VEC a = VLANES(src, 2 * LANE), b = VLANES(src + LANE, 2 * LANE);
    return second ? VLANEODD(a, b) : VLANEEVEN(a, b);
}

/* Every second element; nothing past the last one is read.  The last vector ends with it, where
 * that reads nothing before the first. */
INLINE void NAME(copy_even)(T *dst, const T *src, ptrdiff_t n) {
    ptrdiff_t j = 0;
    if (n > VL) {
        for (; j + VL < n; j += VL) VSTORE(dst + j, NAME(every_second)(src + 2 * j, 0));
        VSTORE(dst + n - VL, NAME(every_second)(src + 2 * (n - VL) - 1, 1));
    } else if (n > 4) {
        for (; j < n - 4; j += 4) {
            NAME(quad) a = *(const NAME(quad) *)(src + 2 * j);
            NAME(quad) b = *(const NAME(quad) *)(src + 2 * j + 4);
            *(NAME(quad) *)(dst + j) = (NAME(quad)){a[0], a[2], b[0], b[2]};
        }
        j = n - 4;
        NAME(quad) a = *(const NAME(quad) *)(src + 2 * j - 1);
        NAME(quad) b = *(const NAME(quad) *)(src + 2 * j + 3);
        *(NAME(quad) *)(dst + j) = (NAME(quad)){a[1], a[3], b[1], b[3]};
    } else {
        for (; j < n; ++j) dst[j] = src[2 * j];
    }
}

INLINE void NAME(halves_quad)(const T *src, T *first, T *second) {
    NAME(quad) a = *(const NAME(quad) *)src, b = *(const NAME(quad) *)(src + 4);
    *(NAME(quad) *)first = QSHUFFLE(a, b, 0, 2, 4, 6);
    *(NAME(quad) *)second = QSHUFFLE(a, b, 1, 3, 5, 7);
}

/* Pairs of vectors, then of four elements.  The last ones end with the row, or one element before,
 * and may overlap those before. */
static void NAME(halves)(ptrdiff_t rows, ptrdiff_t cols, const void *src_, ptrdiff_t src_rs,
                         void *first_, void *second_, ptrdiff_t dst_rs) {
    const T *src = src_;
    T *first = first_, *second = second_;
    const ptrdiff_t last = (cols - 2 * VL) / 2 * 2, least = (cols - 8) / 2 * 2;
    ptrdiff_t whole = cols / (2 * VL) * (2 * VL);
    if (whole > 0 && cols - whole > 8) whole += 2 * VL; /* one that overlaps, not two of four */
    for (ptrdiff_t r = 0; r < rows; ++r) {
        ptrdiff_t j = 0;
        for (; j < whole; j += 2 * VL) {
            const ptrdiff_t at = j < last ? j : last;
            VEC a = VLOAD(src + at), b = VLOAD(src + at + VL);
            VSTORE(first + at / 2, VINORDER(VLANEEVEN(a, b)));
            VSTORE(second + at / 2, VINORDER(VLANEODD(a, b)));
        }
        if (cols >= 8)
            for (; j + 1 < cols; j += 8) {
                const ptrdiff_t at = j < least ? j : least;
                NAME(halves_quad)(src + at, first + at / 2, second + at / 2);
            }
        for (; j + 1 < cols; j += 2) first[j / 2] = src[j], second[j / 2] = src[j + 1];
        if (cols % 2 > 0) first[cols / 2] = src[cols - 1];
        src += src_rs;
        first += dst_rs;
        second += dst_rs;
    }
}

/* Four rows by four columns. */
INLINE void NAME(transpose_quads)(const T *src, ptrdiff_t src_rs, T *dst, ptrdiff_t dst_rs) {
    NAME(quad) x[4], low[2], high[2];
    UNROLL for (int r = 0; r < 4; ++r) x[r] = *(const NAME(quad) *)(src + r * src_rs);
    UNROLL for (int i = 0; i < 2; ++i) {
        NAME(quad) a = x[2 * i], b = x[2 * i + 1];
        low[i] = QSHUFFLE(a, b, 0, 4, 1, 5);
        high[i] = QSHUFFLE(a, b, 2, 6, 3, 7);
    }
    *(NAME(quad) *)dst = QSHUFFLE(low[0], low[1], 0, 1, 4, 5);
    *(NAME(quad) *)(dst + dst_rs) = QSHUFFLE(low[0], low[1], 2, 3, 6, 7);
    *(NAME(quad) *)(dst + 2 * dst_rs) = QSHUFFLE(high[0], high[1], 0, 1, 4, 5);
    *(NAME(quad) *)(dst + 3 * dst_rs) = QSHUFFLE(high[0], high[1], 2, 3, 6, 7);
}

/* VL rows by 16 bytes of columns at a time: a lane holds rows that follow each other; fewer rows, as
 * the weights of a row block are, by fours.  The last ones end where the block does, and may be done
 * twice. */
static void NAME(transpose)(ptrdiff_t rows, ptrdiff_t cols, const void *src_, ptrdiff_t src_rs,
                            void *dst_, ptrdiff_t dst_rs) {
    enum { LANE = 16 / sizeof(T) };
    const T *src = src_;
    T *dst = dst_;
    if (rows < VL && rows >= 4 && cols >= 4) {
        for (ptrdiff_t left = cols; left > 0; left -= 4) {
            ptrdiff_t j = left >= 4 ? cols - left : cols - 4;
            for (ptrdiff_t next = 0; next < rows; next += 4) {
                ptrdiff_t r = next + 4 <= rows ? next : rows - 4;
                NAME(transpose_quads)(src + r * src_rs + j, src_rs, dst + j * dst_rs + r, dst_rs);
            }
        }
        return;
    }
    if (rows < VL || cols < LANE) {
        for (ptrdiff_t r = 0; r < rows; ++r)
            for (ptrdiff_t j = 0; j < cols; ++j) dst[j * dst_rs + r] = src[r * src_rs + j];
        return;
    }
    for (ptrdiff_t next = 0; next < rows; next += VL) {
        ptrdiff_t r = next + VL <= rows ? next : rows - VL;
        for (ptrdiff_t left = cols; left > 0; left -= LANE) {
            ptrdiff_t j = left >= LANE ? cols - left : cols - LANE;
            const T *from = src + r * src_rs + j;
            T *to = dst + j * dst_rs + r;
            VEC x[LANE];
            UNROLL for (int i = 0; i < LANE; ++i) x[i] = VLANES(from + i * src_rs, LANE * src_rs);
#ifdef LEAF_DOUBLE
            VSTORE(to, VLANELOW(x[0], x[1]));
            VSTORE(to + dst_rs, VLANEHIGH(x[0], x[1]));
#else
            VEC a = VLANELOW(x[0], x[2]), b = VLANELOW(x[1], x[3]);
            VEC c = VLANEHIGH(x[0], x[2]), d = VLANEHIGH(x[1], x[3]);
            VSTORE(to, VLANELOW(a, b));
            VSTORE(to + dst_rs, VLANEHIGH(a, b));
            VSTORE(to + 2 * dst_rs, VLANELOW(c, d));
            VSTORE(to + 3 * dst_rs, VLANEHIGH(c, d));
#endif
        }
    }
}

/* ---- interleave: rows of `classes` to one row, by vectors ------------------------------------
 * The last vector of a row ends where the row does, and may overlap the one before it. */
INLINE void NAME(interleave_two)(const T *a, const T *b, T *dst) {
    VEC x = VLOAD(a), y = VLOAD(b);
    VSTORE(dst, VLOW(x, y));
    VSTORE(dst + VL, VHIGH(x, y));
}

INLINE void NAME(interleave_four)(const T *src, ptrdiff_t qs, T *dst) {
    VEC a = VLOAD(src), b = VLOAD(src + qs), c = VLOAD(src + 2 * qs), d = VLOAD(src + 3 * qs);
    VEC low_ac = VLOW(a, c), low_bd = VLOW(b, d), high_ac = VHIGH(a, c), high_bd = VHIGH(b, d);
    VSTORE(dst, VLOW(low_ac, low_bd));
    VSTORE(dst + VL, VHIGH(low_ac, low_bd));
    VSTORE(dst + 2 * VL, VLOW(high_ac, high_bd));
    VSTORE(dst + 3 * VL, VHIGH(high_ac, high_bd));
}

/* Three classes of four columns. */
INLINE void NAME(interleave_three)(const T *src, ptrdiff_t qs, T *dst) {
    NAME(quad) x = *(const NAME(quad) *)src, y = *(const NAME(quad) *)(src + qs);
    NAME(quad) z = *(const NAME(quad) *)(src + 2 * qs);
    NAME(quad) zx = QSHUFFLE(z, x, 0, 5, 2, 7);
    NAME(quad) low_xy = QSHUFFLE(x, y, 0, 4, 1, 5), high_xy = QSHUFFLE(x, y, 2, 6, 3, 7);
    NAME(quad) low_yz = QSHUFFLE(y, z, 0, 4, 1, 5), high_yz = QSHUFFLE(y, z, 2, 6, 3, 7);
    *(NAME(quad) *)dst = QSHUFFLE(low_xy, zx, 0, 1, 4, 5);
    *(NAME(quad) *)(dst + 4) = QSHUFFLE(low_yz, high_xy, 2, 3, 4, 5);
    *(NAME(quad) *)(dst + 8) = QSHUFFLE(zx, high_yz, 2, 3, 6, 7);
}

INLINE void NAME(interleave_row)(ptrdiff_t cols, ptrdiff_t classes, const T *src, ptrdiff_t qs,
                                 T *dst) {
    ptrdiff_t j = 0;
    if (classes == 2 && cols >= VL) {
        for (; j + VL <= cols; j += VL) NAME(interleave_two)(src + j, src + qs + j, dst + 2 * j);
        j = cols - VL;
        NAME(interleave_two)(src + j, src + qs + j, dst + 2 * j);
        return;
    }
    if (classes == 2 && 2 * cols >= VL) { /* half a vector of each at a time */
        VSTORE(dst, VLOW(VLOAD(src), VLOAD(src + qs)));
        j = cols - VL / 2;
        VSTORE(dst + 2 * j, VLOW(VLOAD(src + j), VLOAD(src + qs + j)));
        return;
    }
    if (classes == 4 && cols >= VL) {
        for (; j + VL <= cols; j += VL) NAME(interleave_four)(src + j, qs, dst + 4 * j);
        j = cols - VL;
        NAME(interleave_four)(src + j, qs, dst + 4 * j);
        return;
    }
    if (classes >= 3 && cols >= 4)
        while (j < cols) {
            if (j + 4 > cols) j = cols - 4;
            T *to = dst + j * classes;
            if (classes == 3)
                NAME(interleave_three)(src + j, qs, to);
            else
                for (ptrdiff_t q = 0; q < classes; q += 4) {
                    if (q + 4 > classes) q = classes - 4;
                    NAME(transpose_quads)(src + q * qs + j, qs, to + q, classes);
                }
            j += 4;
        }
    for (; j < cols; ++j)
        for (ptrdiff_t q = 0; q < classes; ++q) dst[j * classes + q] = src[q * qs + j];
}

static void NAME(interleave)(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t classes, ptrdiff_t rest,
                             const void *src_, ptrdiff_t src_rs, ptrdiff_t src_qs, void *dst_,
                             ptrdiff_t dst_rs) {
    const T *src = src_;
    T *dst = dst_;
    const ptrdiff_t line = 64 / sizeof(T), most = 8 * line; /* asked for at a time, or two rows */
    const ptrdiff_t ahead = cols * classes * 2 < most ? most / (cols * classes + 1) : 2;
    for (ptrdiff_t r = 0; r < rows; ++r) {
        if (r + ahead < rows) /* rows are too short for the hardware to see what comes */
            for (ptrdiff_t j = 0; j < cols * classes; j += line)
                __builtin_prefetch(dst + (r + ahead) * dst_rs + j, 1);
        if (classes >= VL && cols >= 4)
            NAME(transpose)(classes, cols, src + r * src_rs, src_qs, dst + r * dst_rs, classes);
        else
            NAME(interleave_row)(cols, classes, src + r * src_rs, src_qs, dst + r * dst_rs);
        for (ptrdiff_t q = 0; q < rest; ++q)
            dst[r * dst_rs + cols * classes + q] = src[r * src_rs + q * src_qs + cols];
    }
}

/* A round of runs, `most` of them: vectors, of which the next run overwrites what is too much. */
INLINE void NAME(runs_round)(const int most, ptrdiff_t run, const T *src, ptrdiff_t qs, T *dst) {
    if (run == 4) {
        UNROLL for (int q = 0; q < most; ++q)
            *(NAME(quad) *)(dst + 4 * q) = *(const NAME(quad) *)(src + q * qs);
        return;
    }
    UNROLL for (int q = 0; q < most; ++q) VSTORE(dst + q * run, VLOAD(src + q * qs));
}

/* Two rounds of runs of two. */
INLINE void NAME(runs_of_two)(const int most, const T *src, ptrdiff_t qs, T *dst) {
    UNROLL for (int q = 0; q < most; q += 2) {
        const int p = q + 1 < most ? q : most - 2; /* of an odd number one is written twice */
        NAME(quad) a = *(const NAME(quad) *)(src + p * qs);
        NAME(quad) b = *(const NAME(quad) *)(src + (p + 1) * qs);
        *(NAME(quad) *)(dst + 2 * p) = QSHUFFLE(a, b, 0, 1, 4, 5);
        *(NAME(quad) *)(dst + 2 * (most + p)) = QSHUFFLE(a, b, 2, 3, 6, 7);
    }
}

#define RUNS_CASE(most)                                                                          \
    case most:                                                                                   \
        if (run == 2)                                                                            \
            for (; at + 4 * most <= cols; at += 4 * most, src += 4)                              \
                NAME(runs_of_two)(most, src, src_qs, dst + at);                                  \
        else                                                                                     \
            for (; at + (most - 1) * run + VL <= cols; at += most * run, src += run)             \
                NAME(runs_round)(most, run, src, src_qs, dst + at);                              \
        break;

static void NAME(interleave_runs)(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t classes, ptrdiff_t run,
                                  const void *src_, ptrdiff_t src_rs, ptrdiff_t src_qs,
                                  void *dst_, ptrdiff_t dst_rs) {
    const ptrdiff_t line = 64 / sizeof(T);
    for (ptrdiff_t r = 0; r < rows; ++r) {
        const T *src = (const T *)src_ + r * src_rs;
        T *dst = (T *)dst_ + r * dst_rs;
        ptrdiff_t at = 0;
        if (r + 1 < rows)
            for (ptrdiff_t j = 0; j < cols; j += line) __builtin_prefetch(dst + dst_rs + j, 1);
        if (run <= VL) switch (classes) {
                RUNS_CASE(2)
                RUNS_CASE(3)
                RUNS_CASE(4)
                RUNS_CASE(5)
            }
        for (; at < cols; src += run)
            for (ptrdiff_t q = 0; q < classes && at < cols; ++q, at += run)
                NAME(copy_row)(dst + at, src + q * src_qs, run < cols - at ? run : cols - at);
    }
}

#undef RUNS_CASE

/* Whether the block (strides in bytes) could be copied by vectors: rows to rows, every second
 * element of rows to rows, or rows to columns; and no element lies across multiples of its size. */
static int NAME(copied)(char *dst, ptrdiff_t dst_rs, ptrdiff_t dst_cs, const char *src,
                        ptrdiff_t src_rs, ptrdiff_t src_cs, ptrdiff_t rows, ptrdiff_t cols) {
    const ptrdiff_t size = sizeof(T);
    if ((dst_rs | dst_cs | src_rs | src_cs | (ptrdiff_t)dst | (ptrdiff_t)src) % size) return 0;
    if (dst_cs == size && src_cs == size) {
        enum { AHEAD = 8 }; /* short rows that lie apart: the hardware does not see what comes */
        for (ptrdiff_t r = 0; r < rows; ++r) {
            if (r + AHEAD < rows) {
                __builtin_prefetch(src + (r + AHEAD) * src_rs);
                __builtin_prefetch(src + (r + AHEAD) * src_rs + (cols - 1) * size);
            }
            NAME(copy_row)((T *)(dst + r * dst_rs), (const T *)(src + r * src_rs), cols);
        }
    } else if (dst_cs == size && src_cs == 2 * size) {
        for (ptrdiff_t r = 0; r < rows; ++r)
            NAME(copy_even)((T *)(dst + r * dst_rs), (const T *)(src + r * src_rs), cols);
    } else if (dst_cs == size && src_rs == size) {
        NAME(transpose)(cols, rows, src, src_cs / size, dst, dst_rs / size);
    } else if (dst_rs == size && src_cs == size) {
        NAME(transpose)(rows, cols, src, src_rs / size, dst, dst_cs / size);
    } else {
        return 0;
    }
    return 1;
}

#include "leaf_pack.inc.c"

#include "leaf_taps.inc.c"

#include "leaf_pair.inc.c"

/* ---- taps where the lanes are channels: the same sums, a pixel's channels a vector -------------
 *   AVX2, 8 rows of 5 taps: 8 accumulators + 5 weights + 1 of a line = 14 of 16 registers */
INLINE void NAME(lanes_column)(const int taps, const int rows, ptrdiff_t lines, const T *src,
                               ptrdiff_t rs, const T *w, ptrdiff_t ws, VEC acc[8]) {
    VEC wv[LEAF_COLUMN_TAPS];
    UNROLL for (int k = 0; k < taps; ++k) wv[k] = VLOAD(w + k * ws);
    UNROLL for (int i = 0; i < rows + taps - 1; ++i) {
        if (__builtin_expect(lines >> i & 1, 1)) { /* in the way of the code: no jump */
            VEC x = VLOAD(src);
            VKEEP(x);
            UNROLL for (int r = 0; r < rows; ++r)
                if (r <= i && i - r < taps) acc[r] = VFMA(wv[i - r], x, acc[r]);
        }
        src += rs;
    }
}

#define LANES_COLUMNS(taps_)                                                                      \
    for (; column < end && column->taps == taps_ && column->chain == chain; ++column)             \
        if ((size_t)(column->pixel + at) < (size_t)width)                                         \
            NAME(lanes_column)(taps_, rows, column->lines, src + column->src, rs,                 \
                               w + column->weight, ws, acc);

INLINE const leaf_column *NAME(lanes_chain)(const int rows, const leaf_column *column,
                                            const leaf_column *end, ptrdiff_t at, ptrdiff_t width,
                                            const T *src, ptrdiff_t rs, const T *w, ptrdiff_t ws,
                                            VEC acc[8]) {
    const ptrdiff_t chain = column < end ? column->chain : 0;
    UNROLL for (int r = 0; r < rows; ++r) acc[r] = VZERO();
    LANES_COLUMNS(5)
    LANES_COLUMNS(4)
    LANES_COLUMNS(3)
    LANES_COLUMNS(2)
    LANES_COLUMNS(1)
    return column;
}
#undef LANES_COLUMNS

INLINE void NAME(lanes_tile)(const int rows, ptrdiff_t n, const leaf_column *column,
                             ptrdiff_t at, ptrdiff_t width, const T *src, ptrdiff_t rs,
                             const T *w, ptrdiff_t ws, VEC bias, T *dst, ptrdiff_t dst_rs) {
    const leaf_column *end = column + n;
    VEC total[8], acc[8];
    column = NAME(lanes_chain)(rows, column, end, at, width, src, rs, w, ws, total);
    while (column < end) {
        column = NAME(lanes_chain)(rows, column, end, at, width, src, rs, w, ws, acc);
        UNROLL for (int r = 0; r < rows; ++r) total[r] = VADD(total[r], acc[r]);
    }
    UNROLL for (int r = 0; r < rows; ++r) VSTORE(dst + r * dst_rs, VADD(bias, total[r]));
}

#define LANES_CASE(rows)                                                                         \
    case rows:                                                                                   \
        for (ptrdiff_t j = 0; j < cols; ++j)                                                     \
            for (ptrdiff_t next = 0; next < lanes; next += VL) {                                 \
                ptrdiff_t v = next + VL <= lanes ? next : lanes - VL;                            \
                NAME(lanes_tile)(rows, n, column, j * step, width, src + j * src_cs + v, src_rs, \
                                 w + v, ws, VLOAD(bias + v), dst + j * dst_cs + v, dst_rs);      \
            }                                                                                    \
        return;

static void NAME(taps_lanes)(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t lanes, ptrdiff_t n,
                             const leaf_column *column, ptrdiff_t step, ptrdiff_t width,
                             const void *src_, ptrdiff_t src_rs, ptrdiff_t src_cs, const void *w_,
                             ptrdiff_t ws, const void *bias_, void *dst_, ptrdiff_t dst_rs,
                             ptrdiff_t dst_cs) {
    const T *src = src_, *w = w_, *bias = bias_;
    T *dst = dst_;
    switch (rows) {
        LANES_CASE(1)
        LANES_CASE(2)
        LANES_CASE(3)
        LANES_CASE(4)
        LANES_CASE(5)
        LANES_CASE(6)
        LANES_CASE(7)
        LANES_CASE(8)
    }
}
#undef LANES_CASE

/* ---- load and store: a strided block, innermost along the smaller user stride --------------- */
#define MAGNITUDE(x) ((x) < 0 ? -(x) : (x))

#define DEFINE_LOAD(kind, swapped, suffix)                                                       \
    static void NAME(load_##suffix)(void *dst_, ptrdiff_t dst_rs, const char *src,               \
                                    ptrdiff_t src_rs, ptrdiff_t src_cs, ptrdiff_t rows,          \
                                    ptrdiff_t cols) {                                            \
        T *restrict dst = dst_;                                                                  \
        if (LEAF_OWN_##kind && !swapped &&                                                       \
            NAME(copied)(dst_, dst_rs * (ptrdiff_t)sizeof(T), sizeof(T), src, src_rs, src_cs,    \
                         rows, cols))                                                            \
            return;                                                                              \
        if (MAGNITUDE(src_rs) < MAGNITUDE(src_cs)) {                                             \
            for (ptrdiff_t j = 0; j < cols; ++j)                                                 \
                for (ptrdiff_t r = 0; r < rows; ++r)                                             \
                    dst[r * dst_rs + j] = (T)leaf_get_##kind(src + r * src_rs + j * src_cs,      \
                                                             swapped);                           \
        } else if (src_cs == (ptrdiff_t)LEAF_SIZE_##kind) {                                      \
            for (ptrdiff_t r = 0; r < rows; ++r)                                                 \
                for (ptrdiff_t j = 0; j < cols; ++j)                                             \
                    dst[r * dst_rs + j] =                                                        \
                        (T)leaf_get_##kind(src + r * src_rs + j * LEAF_SIZE_##kind, swapped);    \
        } else {                                                                                 \
            for (ptrdiff_t r = 0; r < rows; ++r)                                                 \
                for (ptrdiff_t j = 0; j < cols; ++j)                                             \
                    dst[r * dst_rs + j] = (T)leaf_get_##kind(src + r * src_rs + j * src_cs,      \
                                                             swapped);                           \
        }                                                                                        \
    }

#define DEFINE_STORE(kind, swapped, suffix)                                                      \
    static void NAME(store_##suffix)(char *dst, ptrdiff_t dst_rs, ptrdiff_t dst_cs,              \
                                     const void *src_, ptrdiff_t src_rs, ptrdiff_t rows,         \
                                     ptrdiff_t cols) {                                           \
        const T *restrict src = src_;                                                            \
        if (LEAF_OWN_##kind && !swapped &&                                                       \
            NAME(copied)(dst, dst_rs, dst_cs, src_, src_rs * (ptrdiff_t)sizeof(T), sizeof(T),    \
                         rows, cols))                                                            \
            return;                                                                              \
        if (MAGNITUDE(dst_rs) < MAGNITUDE(dst_cs)) {                                             \
            for (ptrdiff_t j = 0; j < cols; ++j)                                                 \
                for (ptrdiff_t r = 0; r < rows; ++r)                                             \
                    leaf_put_##kind(dst + r * dst_rs + j * dst_cs, src[r * src_rs + j],          \
                                    swapped);                                                    \
        } else if (dst_cs == (ptrdiff_t)LEAF_SIZE_##kind) {                                      \
            for (ptrdiff_t r = 0; r < rows; ++r)                                                 \
                for (ptrdiff_t j = 0; j < cols; ++j)                                             \
                    leaf_put_##kind(dst + r * dst_rs + j * LEAF_SIZE_##kind,                     \
                                    src[r * src_rs + j], swapped);                               \
        } else {                                                                                 \
            for (ptrdiff_t r = 0; r < rows; ++r)                                                 \
                for (ptrdiff_t j = 0; j < cols; ++j)                                             \
                    leaf_put_##kind(dst + r * dst_rs + j * dst_cs, src[r * src_rs + j],          \
                                    swapped);                                                    \
        }                                                                                        \
    }

/* ---- n-linear sampling ---------------------------------------------------------------------- */
#define CORNER(kind, swapped, src, at)                                                           \
    ((at) == LEAF_OUTSIDE ? (T)0 : (T)leaf_get_##kind((src) + (at), swapped))

/* What is read for a corner that is outside: no branch, which would be guessed wrong. */
static const T NAME(nothing)[VL];
#define FOUND(src, at) ((at) == LEAF_OUTSIDE ? (const char *)NAME(nothing) : (src) + (at))

#define DEFINE_SAMPLE(kind, swapped, suffix)                                                     \
    INLINE void NAME(sample_corners_##suffix)(const int corners, ptrdiff_t n, ptrdiff_t ld,      \
                                              const ptrdiff_t *offset, const T *coef,            \
                                              const char *src, T *dst) {                         \
        for (ptrdiff_t j = 0; j < n; ++j) {                                                      \
            T value = 0;                                                                         \
            UNROLL for (int q = 0; q < corners; ++q) {                                           \
                const char *at = FOUND(src, offset[q * ld + j]);                                 \
                value = SFMA(coef[q * ld + j], (T)leaf_get_##kind(at, swapped), value);          \
            }                                                                                    \
            dst[j] = value;                                                                      \
        }                                                                                        \
    }                                                                                            \
    static void NAME(sample_##suffix)(ptrdiff_t n, ptrdiff_t corners, ptrdiff_t ld,              \
                                      const ptrdiff_t *offset, const void *coef,                 \
                                      const char *src, void *dst) {                              \
        if (corners == 2)                                                                        \
            NAME(sample_corners_##suffix)(2, n, ld, offset, coef, src, dst);                     \
        else if (corners == 4)                                                                   \
            NAME(sample_corners_##suffix)(4, n, ld, offset, coef, src, dst);                     \
        else                                                                                     \
            NAME(sample_corners_##suffix)(8, n, ld, offset, coef, src, dst);                     \
    }                                                                                            \
    static void NAME(sample_dot_##suffix)(ptrdiff_t n, ptrdiff_t sets, ptrdiff_t corners,        \
                                          ptrdiff_t ld, const ptrdiff_t *offset,                 \
                                          const void *coef_, const char *src, const void *g_,    \
                                          void *acc_) {                                          \
        const T *coef = coef_, *g = g_;                                                          \
        T *acc = acc_;                                                                           \
        for (ptrdiff_t j = 0; j < n; ++j) {                                                      \
            T corner[8];                                                                         \
            for (ptrdiff_t q = 0; q < corners; ++q)                                              \
                corner[q] = CORNER(kind, swapped, src, offset[q * ld + j]);                      \
            for (ptrdiff_t s = 0; s < sets; ++s) {                                               \
                T value = 0;                                                                     \
                for (ptrdiff_t q = 0; q < corners; ++q)                                          \
                    value = SFMA(coef[(s * corners + q) * ld + j], corner[q], value);            \
                acc[s * ld + j] = SFMA(g[j], value, acc[s * ld + j]);                            \
            }                                                                                    \
        }                                                                                        \
    }

#ifdef LEAF_DOUBLE
#define LEAF_OWN_f32 0
#define LEAF_OWN_f64 1
#else
#define LEAF_OWN_f32 1
#define LEAF_OWN_f64 0
#endif
#define LEAF_OWN_f16 0
#define LEAF_OWN_bf16 0
#define LEAF_SIZE_f32 4
#define LEAF_SIZE_f64 8
#define LEAF_SIZE_f16 2
#define LEAF_SIZE_bf16 2

#define DEFINE_READS(kind)                                                                       \
    DEFINE_LOAD(kind, 0, kind)                                                                   \
    DEFINE_LOAD(kind, 1, kind##_swapped)                                                         \
    DEFINE_SAMPLE(kind, 0, kind)                                                                 \
    DEFINE_SAMPLE(kind, 1, kind##_swapped)
#define DEFINE_WRITES(kind)                                                                      \
    DEFINE_STORE(kind, 0, kind)                                                                  \
    DEFINE_STORE(kind, 1, kind##_swapped)

DEFINE_READS(f32)
DEFINE_READS(f64)
DEFINE_READS(f16)
DEFINE_READS(bf16)
#ifdef LEAF_DOUBLE
DEFINE_WRITES(f64)
#else
DEFINE_WRITES(f32)
DEFINE_WRITES(f16)
DEFINE_WRITES(bf16)
#endif

/* One pixel: each vector of channels a chain over the corners; a NULL corner is outside. */
INLINE void NAME(sample_pixel)(const int corners, const int inside, ptrdiff_t channels,
                               const T *const *src, const T *coef, T *dst) {
    VEC w[8];
    UNROLL for (int q = 0; q < corners; ++q) w[q] = VSET1(coef[q]);
    for (ptrdiff_t c = 0; channels >= VL;) {
        VEC value = VZERO();
        UNROLL for (int q = 0; q < corners; ++q)
            value = VFMA(w[q], inside || src[q] ? VLOAD(src[q] + c) : VZERO(), value);
        VSTORE(dst + c, value);
        c += VL;
        if (c == channels) return;
        if (c + VL > channels) c = channels - VL; /* some channels once more */
    }
    for (ptrdiff_t c = 0; c < channels; ++c) {
        T value = 0;
        UNROLL for (int q = 0; q < corners; ++q)
            value = SFMA(coef[q], inside || src[q] ? src[q][c] : (T)0, value);
        dst[c] = value;
    }
}

INLINE void NAME(sample_pixels)(const int corners, ptrdiff_t n, ptrdiff_t channels, ptrdiff_t ld,
                                const ptrdiff_t *offset, const T *coef, const char *src, T *dst,
                                ptrdiff_t dst_rs) {
    for (ptrdiff_t j = 0; j < n; ++j) {
        const T *at[8];
        T w[8];
        int inside = 1;
        UNROLL for (int q = 0; q < corners; ++q) {
            ptrdiff_t o = offset[q * ld + j];
            inside &= o != LEAF_OUTSIDE;
            at[q] = o == LEAF_OUTSIDE ? NULL : (const T *)(src + o);
            w[q] = coef[q * ld + j];
        }
        if (inside)
            NAME(sample_pixel)(corners, 1, channels, at, w, dst + j * dst_rs);
        else
            NAME(sample_pixel)(corners, 0, channels, at, w, dst + j * dst_rs);
    }
}

/* A vector of channels for each pixel. */
INLINE void NAME(sample_vectors)(const int corners, ptrdiff_t n, ptrdiff_t ld,
                                 const ptrdiff_t *offset, const T *coef, const char *src, T *dst,
                                 ptrdiff_t dst_rs) {
    for (ptrdiff_t j = 0; j < n; ++j) {
        VEC value = VZERO();
        UNROLL for (int q = 0; q < corners; ++q) {
            const T *at = (const T *)FOUND(src, offset[q * ld + j]);
            value = VFMA(VSET1(coef[q * ld + j]), VLOAD(at), value);
        }
        VSTORE(dst + j * dst_rs, value);
    }
}

#define SAMPLE_CORNERS(corners)                                                          \
    if (room && channels <= VL)                                                          \
        NAME(sample_vectors)(corners, n, ld, offset, coef, src, dst, dst_rs);            \
    else                                                                                 \
        NAME(sample_pixels)(corners, n, channels, ld, offset, coef, src, dst, dst_rs);

static void NAME(sample_channels)(ptrdiff_t n, ptrdiff_t channels, ptrdiff_t corners, ptrdiff_t ld,
                                  const ptrdiff_t *offset, const void *coef, const char *src,
                                  void *dst, ptrdiff_t dst_rs, int room) {
    if (corners == 2) {
        SAMPLE_CORNERS(2)
    } else if (corners == 4) {
        SAMPLE_CORNERS(4)
    } else {
        SAMPLE_CORNERS(8)
    }
}
#undef SAMPLE_CORNERS

static void NAME(scatter)(ptrdiff_t n, ptrdiff_t corners, ptrdiff_t ld, const ptrdiff_t *offset,
                          const void *coef_, const void *g_, char *dst, ptrdiff_t lo,
                          ptrdiff_t hi) {
    const T *coef = coef_, *g = g_;
    for (ptrdiff_t j = 0; j < n; ++j)
        for (ptrdiff_t q = 0; q < corners; ++q) {
            ptrdiff_t at = offset[q * ld + j];
            if (at < lo || at >= hi) continue; /* LEAF_OUTSIDE is below every lo */
            T *cell = (T *)(dst + at);
            *cell = SFMA(coef[q * ld + j], g[j], *cell);
        }
}

#include "leaf_deform.inc.c"
#ifdef LEAF_DOUBLE
#include "leaf_locate.inc.c"
#endif

static void NAME(add_strided)(ptrdiff_t n, const void *src_, void *dst_, ptrdiff_t step) {
    const T *src = src_;
    T *dst = dst_;
    if (step == 1)
        for (ptrdiff_t j = 0; j < n; ++j) dst[j] += src[j];
    else
        for (ptrdiff_t j = 0; j < n; ++j) dst[j * step] += src[j];
}

static double NAME(sum)(ptrdiff_t n, const void *src_) {
    const T *src = src_;
    T lane[LEAF_LANE_BYTES / sizeof(T)] = {0};
    ptrdiff_t j = 0;
    for (; j + LANES <= n; j += LANES)
        for (ptrdiff_t v = 0; v < LANES; ++v) lane[v] += src[j + v];
    for (ptrdiff_t v = 0; j < n; ++j, ++v) lane[v] += src[j];
    for (ptrdiff_t half = LANES / 2; half > 0; half /= 2)
        for (ptrdiff_t v = 0; v < half; ++v) lane[v] += lane[v + half];
    return (double)lane[0];
}

/* ---- peak: every chain converges to 1, far from overflow and from denormal numbers -----------
 *   the accumulator is a factor, so that no product is the same in each round and moved out of
 *   the loop; 12 chains + 2 constants = 14 of 16 registers */
static double NAME(peak)(ptrdiff_t rounds, void *out) {
    VEC half = VSET1((T)0.5), acc[CHAINS];
    UNROLL for (int i = 0; i < CHAINS; ++i) acc[i] = VSET1((T)i);
    for (ptrdiff_t r = 0; r < rounds; ++r)
        UNROLL for (int i = 0; i < CHAINS; ++i) acc[i] = VFMA(acc[i], half, half);
    T lane[VL];
    UNROLL for (int i = 1; i < CHAINS; ++i) acc[0] = VADD(acc[0], acc[i]);
    VSTORE(lane, acc[0]);
    *(T *)out = lane[0];
    return 2.0 * VL * CHAINS * (double)rounds;
}

static void NAME(triad)(ptrdiff_t n, double scale, const void *a_, const void *b_, void *dst_) {
    const T *a = a_, *b = b_;
    T *dst = dst_;
    VEC factor = VSET1((T)scale);
    ptrdiff_t j = 0;
    for (; j + VL <= n; j += VL) VSTORE(dst + j, VFMA(factor, VLOAD(b + j), VLOAD(a + j)));
    for (; j < n; ++j) dst[j] = SFMA((T)scale, b[j], a[j]);
}

#include "leaf_dwgrad.inc.c"

#define BOTH(leaf, kind, KIND)                                                                   \
    [LEAF_##KIND] = NAME(leaf##_##kind), [LEAF_##KIND + LEAF_SWAPPED] = NAME(leaf##_##kind##_swapped)
#define ALL_READS(leaf)                                                                          \
    { BOTH(leaf, f32, FLOAT32), BOTH(leaf, f64, FLOAT64), BOTH(leaf, f16, FLOAT16),              \
      BOTH(leaf, bf16, BFLOAT16) }

#include "leaf_rows.inc.c"
#ifdef VMASK
#include "leaf_masked.inc.c"
#endif

const leaf_table NAME(leaf_table) = {
    .isa = LEAF_STR(LEAF_NAME),
    .esize = sizeof(T),
    .mr = MR,
    .nr = NR,
    .vl = VL,
#ifdef HEC
    .least = VL / 2,
#else
    .least = VL,
#endif
    .gemm = NAME(gemm),
    .gemm_at = NAME(gemm_at),
    .gemm_narrow = NAME(gemm_narrow),
    .gemm_lanes = NAME(gemm_lanes),
    .gemm_some = NAME(gemm_some),
    .gemm_even = NAME(gemm_even),
    .winograd = NAME(winograd_axes), .spread = NAME(spread),
    .halves = NAME(halves),
    .taps = NAME(taps),
    .taps_lanes = NAME(taps_lanes),
    .taps_pair = NAME(taps_pair),
    .taps_rows = NAME(taps_rows),
#ifdef VMASK
    .taps_masked = NAME(taps_masked),
#endif
    .fetch = NAME(fetch),
    .dots = NAME(dots),
    .pack = NAME(pack),
    .clear = NAME(clear),
    .pad = NAME(pad),
    .load = ALL_READS(load),
#ifdef LEAF_DOUBLE
    .locate = NAME(locate),
#endif
    .sample = ALL_READS(sample),
    .sample_channels = NAME(sample_channels),
    .transpose = NAME(transpose),
    .interleave = NAME(interleave),
    .interleave_runs = NAME(interleave_runs),
    .sample_dot = ALL_READS(sample_dot),
    /* results are stored in the compute type, or rounded from float to a 16-bit one */
#ifdef LEAF_DOUBLE
    .store = {BOTH(store, f64, FLOAT64)},
#else
    .store = {BOTH(store, f32, FLOAT32), BOTH(store, f16, FLOAT16), BOTH(store, bf16, BFLOAT16)},
#endif
    .scatter = NAME(scatter),
    .deform_dots = NAME(deform_dots),
    .deform_samples = NAME(deform_samples),
    .deform_scatter = NAME(deform_scatter),
    .add_strided = NAME(add_strided),
    .sum = NAME(sum),
    .peak = NAME(peak),
    .triad = NAME(triad),
    .dots_exact = NAME(dots_exact),
    .fold = NAME(fold),
};

#undef WINOGRAD_A
#undef WINOGRAD_B
#undef WINOGRAD_C
#undef WINOGRAD_MOST
#undef WINOGRAD_INPUTS
#undef WINOGRAD_AXES
#undef WINOGRAD_EVEN
#undef WINOGRAD_LONE
#undef WINOGRAD_DISTINCT
#undef ALL_READS
#undef BOTH
#undef DEFINE_READS
#undef DEFINE_WRITES
#undef DEFINE_LOAD
#undef DEFINE_STORE
#undef DEFINE_SAMPLE
#undef CORNER
#undef FOUND
#undef MAGNITUDE
#undef LEAF_OWN_f32
#undef LEAF_OWN_f64
#undef LEAF_OWN_f16
#undef LEAF_OWN_bf16
#undef LEAF_SIZE_f32
#undef LEAF_SIZE_f64
#undef LEAF_SIZE_f16
#undef LEAF_SIZE_bf16
#undef UNROLL
#undef INLINE
#undef LANE_VECS
#undef LANES
#undef NR
#undef NAME
