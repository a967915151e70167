/* A tile of `taps_masked`: rows by one vector of columns, those that begin at j.
 * Included by leaf_masked.inc.c, for whole vectors (WIDTH(op) is Vop) and for half ones (Hop), as
 * functions MASKED(name). */

INLINE void NAME(MASKED(column))(const int taps, const int rows, const int part,
                                 const T *const *line, ptrdiff_t at, uint64_t inside,
                                 const WIDTH(EC) *w, WIDTH(EC) acc[LEAF_MASKED_TALL]) {
    __asm__("" ::: "memory"); /* where lines are is read again: there are not registers for all */
    UNROLL for (int i = 0; i < rows + taps - 1; ++i) {
        const T *src = line[i] + at;
        WIDTH(EC) x = part ? WIDTH(LOADPART)((WIDTH(MASK))inside, src) : WIDTH(LOAD)(src);
        VKEEP(x);
        UNROLL for (int r = 0; r < rows; ++r)
            if (r <= i && i - r < taps) acc[r] = WIDTH(FMA)(w[i - r], x, acc[r]);
    }
}

#define MASKED_COLUMNS(taps_)                                                                    \
    for (; column < end && column->taps == taps_; ++column) {                                    \
        WIDTH(EC) wv[taps_];                                                                     \
        UNROLL for (int k = 0; k < taps_; ++k)                                                   \
            wv[k] = WIDTH(SET1)(row->w[column->weight + k * row->ws]);                           \
        NAME(MASKED(column))(taps_, rows, part, line + column->lines, column->src + j,           \
                             inside >> (column->src - row->least), wv, acc);                     \
    }

/* Nine taps where lines and elements of the input are taken two by two: lines 0 and 2 of an output,
 * column by column, before line 1.  What column 2 meets is what column 0 does, one output further. */
INLINE void NAME(MASKED(halved))(const int rows, const NAME(masked_row) *row,
                                 const T *const *line, ptrdiff_t j, uint64_t inside,
                                 WIDTH(EC) acc[LEAF_MASKED_TALL]) {
    const leaf_column *column = row->column;
    const T *const *first = line + column[0].lines, *const *second = line + column[3].lines;
    const ptrdiff_t at = row->least + 2 * j;
    const WIDTH(MASK) next = (WIDTH(MASK))(inside >> 2 * WIDTH(L) & 1);
    WIDTH(EC) even[LEAF_MASKED_TALL + 1], odd[LEAF_MASKED_TALL + 1], w[2];
    UNROLL for (int c = 0; c < 3; ++c) {
        UNROLL for (int k = 0; k < 2; ++k) w[k] = WIDTH(SET1)(row->w[column[c].weight + k * row->ws]);
        UNROLL for (int i = 0; i < rows + 1; ++i) {
            const T *src = first[i] + at;
            if (c == 0) WIDTH(PARTED)(even[i], odd[i], src, inside);
            if (c == 2) even[i] = WIDTH(JOIN)(even[i], WIDTH(LOADPART)(next, src + 2 * WIDTH(L)));
            UNROLL for (int r = 0; r < rows; ++r)
                if (r <= i && i - r < 2)
                    acc[r] = WIDTH(FMA)(w[i - r], c == 1 ? odd[i] : even[i], acc[r]);
        }
    }
    UNROLL for (int r = 0; r < rows; ++r) {
        const T *src = second[r] + at;
        WIDTH(PARTED)(even[r], odd[r], src, inside);
    }
    UNROLL for (int c = 0; c < 3; ++c) {
        w[0] = WIDTH(SET1)(row->w[column[3 + c].weight]);
        UNROLL for (int r = 0; r < rows; ++r) {
            if (c == 2)
                even[r] = WIDTH(JOIN)(
                    even[r], WIDTH(LOADPART)(next, second[r] + at + 2 * WIDTH(L)));
            acc[r] = WIDTH(FMA)(w[0], c == 1 ? odd[r] : even[r], acc[r]);
        }
    }
}

/* `w` has the weights where there are nine, at step 1.  Results past the last column are not written
 * where that would be past `row->last`. */
INLINE void NAME(MASKED(tile))(const int step, const int nine, const int rows, const int part,
                               const NAME(masked_row) *row, const T *const *line, ptrdiff_t j,
                               uint64_t inside, const WIDTH(EC) *w, WIDTH(EC) bias, T *dst) {
    const leaf_column *column = row->column, *end = column + row->columns;
    WIDTH(EC) acc[LEAF_MASKED_TALL];
    UNROLL for (int r = 0; r < rows; ++r) acc[r] = WIDTH(ZERO)();
    if (step == 2) {
        NAME(MASKED(halved))(rows, row, line, j, inside, acc);
    } else if (nine) {
        UNROLL for (int c = 0; c < 3; ++c)
            NAME(MASKED(column))(3, rows, part, line + column->lines, column[c].src + j,
                                 inside >> (column[c].src - row->least), w + 3 * c, acc);
    } else {
        MASKED_COLUMNS(5)
        MASKED_COLUMNS(4)
        MASKED_COLUMNS(3)
        MASKED_COLUMNS(2)
        MASKED_COLUMNS(1)
    }
    T *to = dst + j;
    UNROLL for (int r = 0; r < rows; ++r) {
        if (!part || row->cols >= WIDTH(L) || to + WIDTH(L) <= row->last)
            WIDTH(STORE)(to, WIDTH(ADD)(bias, acc[r]));
        else
            WIDTH(STOREPART)(to, (WIDTH(MASK))((1u << row->cols) - 1), WIDTH(ADD)(bias, acc[r]));
        to += row->dst_rs;
        __asm__("" : "+r"(to)); /* one after another, likewise */
    }
}
#undef MASKED_COLUMNS
