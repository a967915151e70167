/* The leaf kernels of the gradients of deformable convolution, where the channels of a pixel lie
 * next to each other; leaf.inc.c includes it, leaf.h states what each computes. */

/* Sums of four accumulators of LANES elements each: the lanes are added pairwise. */
INLINE void NAME(four_sums)(const T *lane, T *sums) {
    NAME(quad) sum[4], half[2];
    UNROLL for (int q = 0; q < 4; ++q) {
        const NAME(quad) *part = (const NAME(quad) *)(lane + q * LANES);
        sum[q] = LANES == 16 ? (part[0] + part[2]) + (part[1] + part[3]) : part[0] + part[1];
    }
    UNROLL for (int i = 0; i < 2; ++i) {
        NAME(quad) a = sum[2 * i], b = sum[2 * i + 1];
        half[i] = (NAME(quad)){a[0], b[0], a[1], b[1]} + (NAME(quad)){a[2], b[2], a[3], b[3]};
    }
    *(NAME(quad) *)sums = (NAME(quad)){half[0][0], half[0][1], half[1][0], half[1][1]} +
                          (NAME(quad)){half[0][2], half[0][3], half[1][2], half[1][3]};
}

/* One vector of products for each corner; a NULL corner is outside. */
#define DEFORM_PRODUCTS(v, c)                                                                    \
    do {                                                                                         \
        VEC gv = VLOAD(g + (c));                                                                 \
        UNROLL for (int q = 0; q < corners; ++q)                                                 \
            if (inside || src[q])                                                                \
                acc[q * LANE_VECS + v] = VFMA(gv, VLOAD(src[q] + (c)), acc[q * LANE_VECS + v]);  \
    } while (0)

/*   AVX2: 4 corners of 2 vectors = 8 accumulators + 1 of g */
INLINE void NAME(deform_dot)(const int corners, const int inside, ptrdiff_t channels,
                             const T *const *src, const T *g, T *dots) {
    VEC acc[4 * LANE_VECS];
    UNROLL for (int i = 0; i < 4 * LANE_VECS; ++i) acc[i] = VZERO();
    ptrdiff_t c = 0;
    for (; c + LANES <= channels; c += LANES)
        UNROLL for (int v = 0; v < LANE_VECS; ++v) DEFORM_PRODUCTS(v, c + v * VL);
    UNROLL for (int v = 0; v < LANE_VECS; ++v) {
        if (c + VL <= channels) {
            DEFORM_PRODUCTS(v, c);
            c += VL;
        } else if (c < channels) { /* the rest, and zeros */
            T own[VL] = {0};
            for (ptrdiff_t i = 0; c + i < channels; ++i) own[i] = g[c + i];
            VEC gv = VLOAD(own);
            UNROLL for (int q = 0; q < corners; ++q) {
                if (!inside && !src[q]) continue;
                T rest[VL] = {0};
                for (ptrdiff_t i = 0; c + i < channels; ++i) rest[i] = src[q][c + i];
                acc[q * LANE_VECS + v] = VFMA(gv, VLOAD(rest), acc[q * LANE_VECS + v]);
            }
            c = channels;
        }
    }
    T lane[4 * (LEAF_LANE_BYTES / sizeof(T))];
    UNROLL for (int i = 0; i < 4 * LANE_VECS; ++i) VSTORE(lane + i * VL, acc[i]);
    T sums[4];
    NAME(four_sums)(lane, sums);
    UNROLL for (int q = 0; q < corners; ++q) dots[q] = sums[q];
}
#undef DEFORM_PRODUCTS

/* The corners of a spot; returns whether all are inside. */
INLINE int NAME(deform_corners)(const int corners, const ptrdiff_t *at, const T *src,
                                ptrdiff_t pitch, const T **corner) {
    ptrdiff_t any = 0;
    UNROLL for (int q = 0; q < corners; ++q) {
        any |= at[q]; /* negative if one is */
        corner[q] = at[q] < 0 ? NULL : src + at[q] * pitch;
    }
    return any >= 0;
}

/* Corners by fours at most. */
INLINE void NAME(deform_dots_of)(const int corners, ptrdiff_t n, ptrdiff_t channels,
                                 ptrdiff_t step, const ptrdiff_t *at, const T *src,
                                 ptrdiff_t pitch, const T *g, ptrdiff_t g_rs, T *dots) {
    const int part = corners < 4 ? corners : 4;
    for (ptrdiff_t j = 0; j < n; ++j)
        UNROLL for (int q = 0; q < corners; q += part) {
            const T *corner[4];
            if (NAME(deform_corners)(part, at + j * step + q, src, pitch, corner))
                NAME(deform_dot)(part, 1, channels, corner, g + j * g_rs, dots + j * corners + q);
            else
                NAME(deform_dot)(part, 0, channels, corner, g + j * g_rs, dots + j * corners + q);
        }
}

static void NAME(deform_dots)(ptrdiff_t n, ptrdiff_t channels, ptrdiff_t corners, ptrdiff_t step,
                              const ptrdiff_t *at, const void *src, ptrdiff_t pitch,
                              const void *g, ptrdiff_t g_rs, void *dots) {
    if (corners == 2)
        NAME(deform_dots_of)(2, n, channels, step, at, src, pitch, g, g_rs, dots);
    else if (corners == 4)
        NAME(deform_dots_of)(4, n, channels, step, at, src, pitch, g, g_rs, dots);
    else
        NAME(deform_dots_of)(8, n, channels, step, at, src, pitch, g, g_rs, dots);
}

INLINE void NAME(deform_samples_of)(const int corners, ptrdiff_t n, ptrdiff_t channels,
                                    ptrdiff_t step, const ptrdiff_t *at, const T *coef,
                                    const T *src, ptrdiff_t pitch, T *dst, ptrdiff_t dst_rs) {
    for (ptrdiff_t j = 0; j < n; ++j) {
        const T *corner[8];
        if (NAME(deform_corners)(corners, at + j * step, src, pitch, corner))
            NAME(sample_pixel)(corners, 1, channels, corner, coef + j * step, dst + j * dst_rs);
        else
            NAME(sample_pixel)(corners, 0, channels, corner, coef + j * step, dst + j * dst_rs);
    }
}

static void NAME(deform_samples)(ptrdiff_t n, ptrdiff_t channels, ptrdiff_t corners,
                                 ptrdiff_t step, const ptrdiff_t *at, const void *coef,
                                 const void *src, ptrdiff_t pitch, void *dst, ptrdiff_t dst_rs) {
    if (corners == 2)
        NAME(deform_samples_of)(2, n, channels, step, at, coef, src, pitch, dst, dst_rs);
    else if (corners == 4)
        NAME(deform_samples_of)(4, n, channels, step, at, coef, src, pitch, dst, dst_rs);
    else
        NAME(deform_samples_of)(8, n, channels, step, at, coef, src, pitch, dst, dst_rs);
}

/* Corners of one spot are different pixels: their order does not matter. */
INLINE void NAME(deform_add)(const int corners, ptrdiff_t channels, T *const *dst, const T *coef,
                             const T *g) {
    VEC w[8];
    ptrdiff_t c = 0;
    UNROLL for (int q = 0; q < corners; ++q) w[q] = VSET1(coef[q]);
    for (; c + VL <= channels; c += VL) {
        VEC gv = VLOAD(g + c);
        UNROLL for (int q = 0; q < corners; ++q)
            VSTORE(dst[q] + c, VFMA(w[q], gv, VLOAD(dst[q] + c)));
    }
    for (; c < channels; ++c)
        UNROLL for (int q = 0; q < corners; ++q) dst[q][c] = SFMA(coef[q], g[c], dst[q][c]);
}

INLINE void NAME(deform_scatter_of)(const int corners, ptrdiff_t n, ptrdiff_t taps,
                                    ptrdiff_t channels, const ptrdiff_t *at, const T *coef,
                                    const T *g, ptrdiff_t g_ps, ptrdiff_t g_ts, T *dst,
                                    ptrdiff_t pitch) {
    for (ptrdiff_t j = 0; j < n; ++j)
        for (ptrdiff_t t = 0; t < taps; ++t, at += corners, coef += corners) {
            const T *from = g + j * g_ps + t * g_ts;
            T *to[8];
            if (NAME(deform_corners)(corners, at, dst, pitch, (const T **)to)) {
                NAME(deform_add)(corners, channels, to, coef, from);
                continue;
            }
            UNROLL for (int q = 0; q < corners; ++q)
                if (to[q]) NAME(deform_add)(1, channels, to + q, coef + q, from);
        }
}

static void NAME(deform_scatter)(ptrdiff_t n, ptrdiff_t taps, ptrdiff_t channels,
                                 ptrdiff_t corners, const ptrdiff_t *at, const void *coef,
                                 const void *g, ptrdiff_t g_ps, ptrdiff_t g_ts, void *dst,
                                 ptrdiff_t pitch) {
    if (corners == 2)
        NAME(deform_scatter_of)(2, n, taps, channels, at, coef, g, g_ps, g_ts, dst, pitch);
    else if (corners == 4)
        NAME(deform_scatter_of)(4, n, taps, channels, at, coef, g, g_ps, g_ts, dst, pitch);
    else
        NAME(deform_scatter_of)(8, n, taps, channels, at, coef, g, g_ps, g_ts, dst, pitch);
}
