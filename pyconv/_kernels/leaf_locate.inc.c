/* Where samples lie in a plane, a vector at a time; leaf.inc.c includes it for the double table,
 * where coordinates are, and leaf.h states what it computes. */

typedef double NAME(reals) __attribute__((vector_size(8 * VL), aligned(8), may_alias));
typedef int64_t NAME(bits) __attribute__((vector_size(8 * VL), may_alias));
typedef float NAME(singles) __attribute__((vector_size(4 * VL)));

/* Adding it rounds a double of less than 2^51 to an integer, which the low bits then are. */
#define ROUNDER ((NAME(reals)){0} + 6755399441055744.0)
#define CHOSEN(mask, a, b) ((NAME(reals))(((NAME(bits))(a) & (mask)) | ((NAME(bits))(b) & ~(mask))))
#define NEAREST(v) ((v + ROUNDER) - ROUNDER)
#define FLOOR(v) (NEAREST(v) - CHOSEN((NAME(bits))(NEAREST(v) > v), zero + 1.0, zero))

/* `count` samples: those of a vector beyond are read, and not written. */
INLINE void NAME(locate_some)(const int count, const double *o, const double *v, ptrdiff_t step,
                              const double *m, const leaf_plane *plane, ptrdiff_t ld,
                              ptrdiff_t *where, char *coef, ptrdiff_t size) {
    const NAME(reals) zero = {0};
    const NAME(reals) size1 = zero + (double)plane->size[0], size2 = zero + (double)plane->size[1];
    const NAME(reals) step1 = zero + (double)plane->stride[0];
    const NAME(reals) step2 = zero + (double)plane->stride[1];
    const NAME(bits) outside = (NAME(bits)){0} + LEAF_OUTSIDE;
    NAME(reals) y = (plane->base[0] + *(const NAME(reals) *)o) + *(const NAME(reals) *)v;
    NAME(reals) x =
        (plane->base[1] + *(const NAME(reals) *)(o + step)) + *(const NAME(reals) *)(v + step);
    NAME(reals) mask = zero + 1.0;
    if (m) mask = *(const NAME(reals) *)m;
    NAME(bits) met = (NAME(bits))(y > zero - 1.0) & (NAME(bits))(y < size1) &
                     (NAME(bits))(x > zero - 1.0) & (NAME(bits))(x < size2);
    y = CHOSEN(met, y, zero);
    x = CHOSEN(met, x, zero);
    NAME(reals) top = FLOOR(y), left = FLOOR(x);
    /* A corner outside has weight 0 along one axis, and coefficient 0 * mask: a NaN is not lost. */
    NAME(bits) above[2] = {met & (NAME(bits))(top >= zero), met & (NAME(bits))(top + 1.0 < size1)};
    NAME(bits) beside[2] = {(NAME(bits))(left >= zero), (NAME(bits))(left + 1.0 < size2)};
    NAME(reals) share[2] = {mask * CHOSEN(above[0], 1.0 - (y - top), zero),
                            mask * CHOSEN(above[1], y - top, zero)};
    NAME(reals) weight[2] = {CHOSEN(beside[0], 1.0 - (x - left), zero),
                             CHOSEN(beside[1], x - left, zero)};
    NAME(bits) place = (NAME(bits))(top * step1 + left * step2 + ROUNDER) - (NAME(bits))ROUNDER;
    UNROLL for (int q = 0; q < 4; ++q) {
        NAME(bits) inside = above[q / 2] & beside[q % 2];
        NAME(bits) at = place + (q / 2 * plane->stride[0] + q % 2 * plane->stride[1]);
        NAME(reals) c = share[q / 2] * weight[q % 2];
        at = (at & inside) | (outside & ~inside);
        if (sizeof(ptrdiff_t) == sizeof(int64_t))
            memcpy(where + q * ld, &at, count * sizeof(ptrdiff_t));
        else
            for (int i = 0; i < count; ++i) where[q * ld + i] = (ptrdiff_t)at[i];
        if (size == sizeof(float)) {
            NAME(singles) single = __builtin_convertvector(c, NAME(singles));
            memcpy(coef + q * ld * size, &single, count * sizeof(float));
        } else {
            memcpy(coef + q * ld * size, &c, count * sizeof(double));
        }
    }
}

static void NAME(locate)(ptrdiff_t n, const double *o, const double *v, const double *m,
                         const leaf_plane *plane, ptrdiff_t ld, ptrdiff_t *where, void *coef_,
                         ptrdiff_t size) {
    double rest[5][VL] = {{0}};
    char *coef = coef_;
    ptrdiff_t j = 0;
    for (; j + VL <= n; j += VL)
        NAME(locate_some)(VL, o + j, v + j, ld, m ? m + j : NULL, plane, ld, where + j,
                          coef + j * size, size);
    for (ptrdiff_t i = 0; j + i < n; ++i) {
        for (int a = 0; a < 2; ++a) {
            rest[a][i] = o[a * ld + j + i];
            rest[2 + a][i] = v[a * ld + j + i];
        }
        if (m) rest[4][i] = m[j + i];
    }
    if (j < n)
        NAME(locate_some)((int)(n - j), rest[0], rest[2], VL, m ? rest[4] : NULL, plane, ld,
                          where + j, coef + j * size, size);
}
#undef FLOOR
#undef NEAREST
#undef CHOSEN
#undef ROUNDER
