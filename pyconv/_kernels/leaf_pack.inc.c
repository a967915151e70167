/* Packing by a table: one run of pixels, for each depth from where the table says.
 * Included by leaf.inc.c, for each instruction set and compute type.
 *
 *   How long a run is is settled once for all depths.  What a table calls outside is read from
 *   zeros, so that no jump depends on it. */
enum { NAME(PACK_SHORT), NAME(PACK_ONE), NAME(PACK_VECTORS), NAME(PACK_PANEL) };

INLINE void NAME(pack_run)(const int kind, ptrdiff_t depth, ptrdiff_t n, const T *src,
                           const ptrdiff_t *at, T *dst, ptrdiff_t dst_rs) {
    static const T zeros[2 * VL];
    enum { AHEAD = 128 / sizeof(T) }; /* pixels that follow, of channels that lie far apart */
    for (ptrdiff_t k = 0; k < depth; ++k, dst += dst_rs) {
        const T *from = at[k] == LEAF_OUTSIDE ? zeros : src + at[k];
        const ptrdiff_t second = kind == NAME(PACK_PANEL) ? VL : n - VL;
        __builtin_prefetch(from + AHEAD);
        if (kind == NAME(PACK_PANEL) || kind == NAME(PACK_VECTORS)) {
            VEC low = VLOAD(from), high = VLOAD(from + second);
            VSTORE(dst, low);
            VSTORE(dst + second, high);
        } else if (kind == NAME(PACK_ONE)) {
            dst[0] = from[0];
        } else {
            NAME(copy_row)(dst, from, n);
        }
    }
}

static void NAME(pack)(ptrdiff_t depth, ptrdiff_t n, const void *src_, const ptrdiff_t *at,
                       void *dst_, ptrdiff_t dst_rs) {
    const T *src = src_;
    T *dst = dst_;
    if (n == 2 * VL) {
        NAME(pack_run)(NAME(PACK_PANEL), depth, n, src, at, dst, dst_rs);
    } else if (n == 1) {
        NAME(pack_run)(NAME(PACK_ONE), depth, n, src, at, dst, dst_rs);
    } else if (n < VL) {
        NAME(pack_run)(NAME(PACK_SHORT), depth, n, src, at, dst, dst_rs);
    } else if (n < 2 * VL) {
        NAME(pack_run)(NAME(PACK_VECTORS), depth, n, src, at, dst, dst_rs);
    } else {
        for (ptrdiff_t k = 0; k < depth; ++k, dst += dst_rs) {
            if (at[k] == LEAF_OUTSIDE)
                NAME(clear)(dst, 0, 1, n);
            else
                NAME(copy_row)(dst, src + at[k], n);
        }
    }
}
