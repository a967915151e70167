/* Taps that read the lines of the input where they are, to their very ends: vectors are read, and
 * written, in part there.  For instruction sets whose masks cost nothing (VMASK).
 *
 *   As in `taps`, a column of taps has its weights once, and then each line that the tile reads.
 *   Tiles are one vector wide and up to eight rows tall: what is read crosses lines of the cache,
 *   which costs more than a multiply-add, and the taller a tile, the fewer lines it reads for each.
 *   AVX-512, 8 rows, 5 taps: 8 accumulators + 5 weights + 1 of a line = 14 of 32 registers; nine
 *   weights that stay are 18 */

/* What the tiles of a call share: the arguments of `taps_masked`, and what follows from them. */
typedef struct {
    const leaf_column *column;
    ptrdiff_t columns;
    ptrdiff_t least, most; /* the lowest and the highest `src` of a column */
    ptrdiff_t first, width;
    const T *w;
    ptrdiff_t ws, dst_rs, cols;
    const T *last; /* up to where whole vectors may be written */
} NAME(masked_row);

/* The elements from p on that are inside, parted into the first of two and the second. */
#define VPARTED(even, odd, p, inside)                                                            \
    do {                                                                                         \
        VEC low_ = VLOADPART((VMASK)(inside), p);                                                \
        VEC high_ = VLOADPART((VMASK)((inside) >> VL), (p) + VL);                                \
        even = VEVEN(low_, high_);                                                               \
        odd = VODD(low_, high_);                                                                 \
    } while (0)
#define HPARTED(even, odd, p, inside)                                                            \
    do {                                                                                         \
        VEC both_ = VLOADPART((VMASK)(inside), p);                                               \
        even = HLOWER(VEVEN(both_, both_));                                                      \
        odd = HLOWER(VODD(both_, both_));                                                        \
    } while (0)
/* The lanes of x but the first, then the first of y. */
#if VL == 16
#define VJOIN(x, y) VSHUFFLE(x, y, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
#define HJOIN(x, y) QSHUFFLE(x, y, 1, 2, 3, 4, 5, 6, 7, 8)
#else
#define VJOIN(x, y) VSHUFFLE(x, y, 1, 2, 3, 4, 5, 6, 7, 8)
#define HJOIN(x, y) QSHUFFLE(x, y, 1, 2, 3, 4)
#endif

#define WIDTH(op) V##op
#define MASKED(name) masked_##name
#include "leaf_masked_tile.inc.c"
#undef WIDTH
#undef MASKED
#define WIDTH(op) H##op
#define MASKED(name) masked_half_##name
#include "leaf_masked_tile.inc.c"
#undef WIDTH
#undef MASKED

/* Which of the elements from `at` on are inside, one bit for each. */
INLINE uint64_t NAME(bits_inside)(ptrdiff_t at, ptrdiff_t width) {
    const ptrdiff_t end = width - at, begin = at < 0 ? -at : 0;
    const uint64_t before = end >= 64 ? ~(uint64_t)0 : end > 0 ? ((uint64_t)1 << end) - 1 : 0;
    return begin >= 64 ? 0 : before >> begin << begin;
}

/* Rows from left to right; the last vector, or half of one where that is enough, ends where they do,
 * and may overlap the one before. */
INLINE void NAME(masked_strip)(const int step, const int nine, const int rows,
                               const NAME(masked_row) *row,
                               const T *const *line, VEC bias, T *dst) {
    const ptrdiff_t cols = row->cols, start = row->first + row->least;
    const ptrdiff_t low = -start, high = row->width - row->first - row->most - VL;
    VEC wv[9];
    HEC hv[9];
    if (nine && step == 1)
        UNROLL for (int k = 0; k < 9; ++k) {
            wv[k] = VSET1(row->w[row->column[k / 3].weight + k % 3 * row->ws]);
            hv[k] = HLOWER(wv[k]);
        }
    for (ptrdiff_t j = 0; j < cols; j += VL) {
        if (cols - j <= HL) {
            if (cols > HL) j = cols - HL;
            NAME(masked_half_tile)(step, nine, rows, 1, row, line, j,
                                   NAME(bits_inside)(start + step * j, row->width), hv,
                                   HLOWER(bias), dst);
            break;
        }
        if (j > 0 && j + VL > cols) j = cols - VL;
        if (step == 1 && low <= j && j <= high && j + VL <= cols)
            NAME(masked_tile)(step, nine, rows, 0, row, line, j, 0, wv, bias, dst);
        else
            NAME(masked_tile)(step, nine, rows, 1, row, line, j,
                              NAME(bits_inside)(start + step * j, row->width), wv, bias, dst);
    }
}

#define MASKED_CASE(rows)                                                                        \
    case rows:                                                                                   \
        if (step == 2)                                                                           \
            NAME(masked_strip)(2, 1, rows, &row, line, bias, dst);                               \
        else if (nine)                                                                           \
            NAME(masked_strip)(1, 1, rows, &row, line, bias, dst);                               \
        else                                                                                     \
            NAME(masked_strip)(1, 0, rows, &row, line, bias, dst);                               \
        break;

static void NAME(taps_masked)(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t n,
                              const leaf_column *column, ptrdiff_t step, const void *const *line_,
                              ptrdiff_t first, ptrdiff_t width, const void *w, ptrdiff_t ws,
                              const void *bias_, void *dst_, ptrdiff_t dst_rs,
                              const leaf_ahead *ahead_) {
    const T *const *line = (const T *const *)line_;
    T *dst = dst_;
    const VEC bias = VSET1(*(const T *)bias_);
    const ptrdiff_t tiles = (rows + LEAF_MASKED_TALL - 1) / LEAF_MASKED_TALL;
    const ptrdiff_t tall = (rows + tiles - 1) / tiles; /* no tile is much shorter */
    const int nine = n == 3 && column[0].taps == 3 && column[2].taps == 3
                     && column[0].lines == column[2].lines;
    NAME(masked_row) row = {
        .column = column, .columns = n, .least = column->src, .most = column->src,
        .first = first, .width = width, .w = w, .ws = ws, .dst_rs = dst_rs, .cols = cols,
        .last = dst_rs == cols ? dst + rows * cols : dst,
    };
    for (ptrdiff_t c = 1; c < n; ++c) {
        if (column[c].src < row.least) row.least = column[c].src;
        if (column[c].src > row.most) row.most = column[c].src;
    }
    leaf_ahead ahead = {0, 0, 0, 0};
    if (ahead_ != 0) ahead = *ahead_;
    const ptrdiff_t share = NAME(taps_share)(&ahead, tiles);
    for (; rows > 0; rows -= tall) {
        if (share > 0) {
            NAME(taps_ahead)(&ahead.read, &ahead.read_bytes, share, 0);
            NAME(taps_ahead)(&ahead.write, &ahead.write_bytes, share, 1);
        }
        if (rows < tall) { /* some rows of the tile before are made once more */
            line -= tall - rows;
            dst -= (tall - rows) * dst_rs;
        }
        switch (tall) {
            MASKED_CASE(1)
            MASKED_CASE(2)
            MASKED_CASE(3)
            MASKED_CASE(4)
            MASKED_CASE(5)
            MASKED_CASE(6)
            MASKED_CASE(7)
            MASKED_CASE(8)
        }
        line += tall;
        dst += tall * dst_rs;
    }
}
#undef MASKED_CASE
#undef VPARTED
#undef HPARTED
#undef VJOIN
#undef HJOIN
