/* The leaf kernels: every routine that touches an array element, and nothing else.
 *
 * One table of function pointers exists per instruction set and compute type (float, double).
 * `leaf_select()` picks the table for this CPU; the Cython drivers own everything above it:
 * loop nests, tiles, packing order, coordinates, threads.  The drivers never look at an element,
 * so they are written once for all types and move `char *` and `void *` around.
 *
 * Contract shared by all leaves
 *   - sizes and strides are ptrdiff_t; "bytes" strides belong to user arrays, "elements" strides
 *     to workspace, which always holds the compute type, aligned to its own size;
 *   - a leaf writes nothing but its stated outputs and calls no library function;
 *   - every output element is one sequential chain of fused multiply-adds in a documented order,
 *     so its bits depend on neither its place in a tile nor the thread that computes it.
 */
#ifndef PYCONV_LEAF_H
#define PYCONV_LEAF_H

#include <stddef.h>
#include <stdint.h>

/* How a user array stores its elements: a kind, plus LEAF_SWAPPED for the other byte order. */
enum {
    LEAF_FLOAT32 = 0,
    LEAF_FLOAT64 = 1,
    LEAF_FLOAT16 = 2,
    LEAF_BFLOAT16 = 3,
    LEAF_SWAPPED = 4,
    LEAF_STORAGES = 8
};

/* Byte offset of a sampling corner that lies outside the array: it reads as zero. */
#define LEAF_OUTSIDE PTRDIFF_MIN

/* Partial sums that `fold` adds: one 64-byte line, for any vector width. */
#define LEAF_LANE_BYTES 64

/* Terms of a chain of `dots`, about: what it reads of more columns begins another. */
#define LEAF_CHAIN 128

/* Taps of a column that `dots` takes. */
#define LEAF_DOTS_TAPS 3

/* Panels of nr columns that `gemm_at` takes at once of m rows: more of few, for the pipelines to be
 * full. */
#define LEAF_WIDE(m, mr) ((m) > 3 ? 1 : (mr) / (m) < 4 ? (mr) / (m) : 4)

/* Bytes of their results, at most, for which depths are read some at a time: they stay in L1. */
#define LEAF_LONG 12288

/* Taps that stand below each other, one line apart, as `taps` takes them: elements from where the
 * lines and the weights start to the first one's, and how many taps.  Columns of one `chain` follow
 * each other. */
#define LEAF_COLUMN_TAPS 5
typedef struct leaf_column {
    ptrdiff_t src, weight, taps, chain;
    ptrdiff_t lines, pixel; /* `taps_lanes` alone: lines that are inside, first pixel met;
                             * `taps_rows`, `taps_masked`: the first line */
} leaf_column;

/* Extents of a plane along its two axes, bytes from one element to the next, and the coordinate that
 * others count from. */
typedef struct leaf_plane {
    ptrdiff_t size[2], stride[2];
    double base[2];
} leaf_plane;

/* Memory that is soon read, and soon written: asked for meanwhile, a share beside each tile. */
typedef struct leaf_ahead {
    const char *read, *write;
    ptrdiff_t read_bytes, write_bytes;
} leaf_ahead;

/* Rows of memory that are read soon, or written: asked for meanwhile, some cache lines beside each
 * tile, until no rows are left. */
typedef struct leaf_soon {
    const char *at;        /* the next row */
    ptrdiff_t step, rows;  /* bytes from one row to the next, and how many are left */
    ptrdiff_t bytes, done; /* of a row; of the next one, already asked for */
    ptrdiff_t each;        /* cache lines beside a tile */
} leaf_soon;

/* What `taps_rows` takes: elements of a line from one output to the next, and the taps of longer and
 * of shorter columns (0: there are none); and how many rows at least. */
#define LEAF_ROWS(step, more, fewer) (((step) * 8 + (more)) * 8 + (fewer))
#define LEAF_ROWS_KINDS(kind) kind(1, 3, 0) kind(1, 5, 0) kind(1, 4, 3) kind(2, 1, 0) \
    kind(2, 2, 1)
#define LEAF_ROWS_LEAST 4

static inline int leaf_has_rows(ptrdiff_t kind) {
#define LEAF_ROWS_CASE(step, more, fewer) kind == LEAF_ROWS(step, more, fewer) ||
    return LEAF_ROWS_KINDS(LEAF_ROWS_CASE) 0;
#undef LEAF_ROWS_CASE
}

/* Elements of a line that `taps_masked` may meet at once, one bit for each, and rows of its tiles. */
#define LEAF_MASKED_SPAN 64
#define LEAF_MASKED_TALL 8

/* Rows that `taps_pair` takes, at most. */
#define LEAF_PAIR_ROWS 4

/* Rows that `taps_lanes` takes. */
#define LEAF_LANE_ROWS 8

/* Kernels whose taps `weights` transforms at a time. */
#define LEAF_KERNELS 4

/* Winograd's algorithm along one axis of a tile: m outputs of n inputs with r taps, and n products,
 * n = stride * (m - 1) + r.  A tile of two axes has a place for each pair of their products; axis 0
 * goes down a tile, from line to line, axis 1 along its lines.  The matrices are in leaf.inc.c. */
typedef struct leaf_winograd {
    ptrdiff_t stride, taps, outputs, inputs;
    ptrdiff_t distinct; /* rows of G: those after the last are equal to it */

    /* dst[i * rs + j] = sum over l of Bt[i][l] * src[l][j]   for i < n, j < cols.
     * Fewer columns than a vector has are read and written as a whole vector. */
    void (*rows)(ptrdiff_t cols, const void *const *src, void *dst, ptrdiff_t rs);

    /* dst[(n * i + j) * fs + t] = sum over l of Bt[j][l] * column l of tile t in row i of src, which
     * is element i * rs + at[t] + l, for i < lines; or, where `at` is NULL, i * rs + t + l * step.
     * In whole vectors of tiles: past the last, `at` and 64 bytes are read, and results written. */
    void (*columns)(ptrdiff_t tiles, ptrdiff_t lines, const void *src, ptrdiff_t rs,
                    const ptrdiff_t *at, ptrdiff_t step, void *dst, ptrdiff_t fs);

    /* dst[(lines * i + j) * ds + t] = sum over l < n of At[i][l] * src[(lines * l + j) * fs + t]
     * for i < m, j < lines.  In whole vectors of tiles. */
    void (*down)(ptrdiff_t tiles, ptrdiff_t lines, const void *src, ptrdiff_t fs, void *dst,
                 ptrdiff_t ds);

    /* dst[i * rs + m * t + j] = bias + sum over l < n of At[j][l] * src[(n * i + l) * fs + t]
     * for i < lines, j < m; with cs != 1 at dst[i * rs + j * cs + t].  There is one bias, or one for
     * each t.  In whole vectors of tiles: up to 64 bytes past the last are read, and their outputs
     * written. */
    void (*along)(ptrdiff_t tiles, ptrdiff_t lines, const void *src, ptrdiff_t fs,
                  const void *bias, int biases, void *dst, ptrdiff_t rs, ptrdiff_t cs);

    /* dst[i * ds + v] = sum over t < r of G[i][t] * src[t * ss + v]   for i < distinct, v < count,
     * a multiple of LEAF_KERNELS. */
    void (*weights)(ptrdiff_t count, const double *src, ptrdiff_t ss, double *dst, ptrdiff_t ds);

    /* The same to the compute type, v < count, any number; src is read up to a multiple. */
    void (*last_weights)(ptrdiff_t count, const double *src, ptrdiff_t ss, void *dst,
                         ptrdiff_t ds);

    /* The transposed matrices, for gradients of the weights; NULL at stride 2.  In whole vectors.
     * dst[i * rs + j] = sum over l < m of At[l][i] * src[l][j]   for i < n, j < cols. */
    void (*lift_rows)(ptrdiff_t cols, const void *const *src, void *dst, ptrdiff_t rs);

    /* dst[(n * i + j) * fs + t] = sum over l < m of At[l][j] * src[i * rs + l * step + t]
     * for i < lines, j < n, t < lanes. */
    void (*lift_columns)(ptrdiff_t lanes, ptrdiff_t lines, const void *src, ptrdiff_t rs,
                         ptrdiff_t step, void *dst, ptrdiff_t fs);

    /* dst[(lines * i + j) * ds + t] = sum over l < n of G[l][i] * src[(lines * l + j) * fs + t]
     * for i < r, j < lines, t < count. */
    void (*fold)(ptrdiff_t count, ptrdiff_t lines, const void *src, ptrdiff_t fs, void *dst,
                 ptrdiff_t ds);
} leaf_winograd;

/* Lane by lane, for tap k of each column: acc[(weight_of_column + k * ws) * acc_ts + lane] +=
 *     sum of g[s * g_cs + r * g_rs + lane] * src[src_of_column + s * src_cs + (r + k) * src_rs + lane]
 * over strips s and rows r, for lane < lanes, a multiple of vl; vectors that begin at lane `last` or
 * later are left out of the last strip.  A chain, from zero, goes over the rows of a strip and on to
 * the next, for LEAF_CHAIN / rows strips, or one; chains are added in order.  Columns have up to
 * LEAF_DOTS_TAPS taps. */
typedef void (*leaf_dots)(ptrdiff_t rows, ptrdiff_t strips, ptrdiff_t lanes, ptrdiff_t last,
                          ptrdiff_t columns, const leaf_column *column, const void *src,
                          ptrdiff_t src_rs, ptrdiff_t src_cs, const void *g, ptrdiff_t g_rs,
                          ptrdiff_t g_cs, void *acc, ptrdiff_t acc_ts, ptrdiff_t ws);

typedef struct leaf_table {
    const char *isa;      /* "base", "avx2", "avx512", "neon" */
    ptrdiff_t esize;      /* bytes of the compute type */
    ptrdiff_t mr, nr;     /* micro-tile: rows of A, columns of B */
    ptrdiff_t vl;         /* elements of a vector */
    ptrdiff_t least;      /* columns that gemm_narrow computes at least: vl, or half of it */

    /* c[i, j] (+)= sum_k a[i, k] * b[k, j]   for i < m, j < n
     * The micro-kernel.  a: rows a_rs elements apart, each of k depths next to each other, or where
     * a_rs is 0 blocks of mr rows, each [k][mr], one after another; b: panels of nr columns, b_ps
     * elements apart, of rows b_ks elements apart, all of their columns readable; c: rows c_rs
     * elements apart.  The sum starts from zero and runs over k in order; then it is added to
     * bias[i] (or 0) when `add` is 0, else to c[i, j].  What is read
     * `soon` is asked for, unless that is NULL. */
    void (*gemm)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const void *a, ptrdiff_t a_rs,
                 const void *b, ptrdiff_t b_ks, ptrdiff_t b_ps, void *c, ptrdiff_t c_rs,
                 const void *bias, int add, leaf_soon *soon);

    /* The same where row k of b begins b_at[k] elements from `b`, its columns next to each other. */
    void (*gemm_at)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const void *a, ptrdiff_t a_rs,
                    const void *b, const ptrdiff_t *b_at, void *c, ptrdiff_t c_rs,
                    const void *bias, int add);

    /* The same for n <= vl columns, computed as `least` where those are enough and as vl otherwise,
     * and up to 2 * mr rows, in packed blocks of mr that are `block` elements apart; no bias. */
    void (*gemm_narrow)(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const void *a, ptrdiff_t block,
                        const void *b, ptrdiff_t b_ks, void *c, ptrdiff_t c_rs, int add);

    /* The same product, with the same bits, where rows of A are in lanes:
     * c[j * lanes + i] (+)= sum_k a[k * lanes + i] * b[pixel[j] + b_at[k]]   for i < lanes, j < n
     * lanes is nr / 2, nr or 3 * nr / 2; n > 0.  Depths from each multiple of `run` to the next are
     * next to each other in b: of several runs; 0 if all are.  Summed as in `gemm`; bias has `lanes`
     * elements.  What is written `soon` is asked for, unless that is NULL. */
    void (*gemm_lanes)(ptrdiff_t lanes, ptrdiff_t n, ptrdiff_t k, ptrdiff_t run, const void *a,
                       const void *b, const ptrdiff_t *b_at, const ptrdiff_t *pixel, void *c,
                       const void *bias, int add, leaf_soon *soon);

    /* The same of k depths, of which number d is which[d], with results at c[place[j] * lanes]. */
    void (*gemm_some)(ptrdiff_t lanes, ptrdiff_t n, ptrdiff_t k, const void *a,
                      const int32_t *which, const void *b, const ptrdiff_t *b_at,
                      const ptrdiff_t *pixel, const ptrdiff_t *place, void *c, const void *bias,
                      int add, leaf_soon *soon);

    /* `gemm_lanes` of b[j * b_ps + k], without a bias: for few pixels or depths. */
    void (*gemm_even)(ptrdiff_t lanes, ptrdiff_t n, ptrdiff_t k, const void *a, const void *b,
                      ptrdiff_t b_ps, void *c, int add);

    /* dst[r * dst_rs + j] = bias + sum over columns and their taps k of
     *                       w[weight_of_column + k * ws] * src[src_of_column + (r + k) * src_rs + j]
     * for r < rows, j < cols: columns and taps in order, each chain from zero; the chains are added
     * in order, then the bias.  Of a chain, columns with more taps come first.  A vector is read
     * from the start of a line that is shorter.  `ahead` may be NULL. */
    void (*taps)(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t columns, const leaf_column *column,
                 const void *src, ptrdiff_t src_rs, const void *w, ptrdiff_t ws, const void *bias,
                 void *dst, ptrdiff_t dst_rs, const leaf_ahead *ahead);

    /* Two classes along a row, of single taps: the first `first` columns and the `second` after them.
     * dst[r * dst_rs + 2 * j + q] = bias[0] + sum over the taps of class q of
     *     w[weight_of_tap] * src[src_of_tap + r * src_rs + j]
     * for r < rows, 2 * j + q < length; each a chain over its taps in order, from zero.  Up to a
     * vector past the last position is read.  What lies `ahead` elements further, unless it is 0,
     * is fetched to be written. */
    void (*taps_pair)(ptrdiff_t rows, ptrdiff_t length, ptrdiff_t first, ptrdiff_t second,
                      const leaf_column *column, const void *src, ptrdiff_t src_rs, const void *w,
                      const void *bias, void *dst, ptrdiff_t dst_rs, ptrdiff_t ahead);

    /* The sums of `taps` where each line is found by a pointer: line[lines_of_column + (r + k) * line_rs]
     * is what tap k of a column reads for row r, and dst[r * dst_rs + j] meets element
     * src_of_column + j * step of it.  `kind` is a LEAF_ROWS that there is, with the lengths of the
     * columns, all of one chain; rows >= LEAF_ROWS_LEAST, cols >= vl.  Nothing else of a line is
     * read; with step 2 some columns have a `src` of 0 and some of more. */
    void (*taps_rows)(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t kind, ptrdiff_t columns,
                      const leaf_column *column, const void *const *line, ptrdiff_t line_rs,
                      const void *w, ptrdiff_t ws, const void *bias, void *dst, ptrdiff_t dst_rs);

    /* The same of any number of rows and columns, more than 0, and columns of taps of one chain, for
     * lines that end: line[lines_of_column + r + k] is what tap k of a column reads for row r, and
     * its element e = src_of_column + j * step is read where 0 <= first + e < width, and is zero
     * elsewhere.  The columns and a vector reach over LEAF_MASKED_SPAN elements, or fewer.  A step
     * of 2 is for 3 x 3 taps at a stride of 2 along both axes, next to each other.  While rows
     * follow each other (dst_rs == cols), what lies after the results of one is written before
     * those of the next.  `ahead` may be NULL.  NULL where vectors are not read in part. */
    void (*taps_masked)(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t columns,
                        const leaf_column *column, ptrdiff_t step, const void *const *line,
                        ptrdiff_t first, ptrdiff_t width, const void *w, ptrdiff_t ws,
                        const void *bias, void *dst, ptrdiff_t dst_rs,
                        const leaf_ahead *ahead);

    /* Asks for `bytes` from p on: they are read, or written, soon. */
    void (*fetch)(const void *p, ptrdiff_t bytes, int written);

    /* The same sums where the channels of a pixel lie next to each other, each with weights of its
     * own: dst[r * dst_rs + j * dst_cs + c] = bias[c] + sum over columns and their taps k of
     *     w[weight_of_column + k * ws + c] * src[src_of_column + (r + k) * src_rs + j * src_cs + c]
     * for r < rows <= LEAF_LANE_ROWS, j < cols, c < lanes; lanes >= vl.  What is outside the
     * input counts nothing and is not read: line r + k unless bit r + k of the column's `lines`
     * is set, and the column for pixel j unless 0 <= pixel_of_column + j * step < width. */
    void (*taps_lanes)(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t lanes, ptrdiff_t columns,
                       const leaf_column *column, ptrdiff_t step, ptrdiff_t width,
                       const void *src, ptrdiff_t src_rs, ptrdiff_t src_cs, const void *w,
                       ptrdiff_t ws, const void *bias, void *dst, ptrdiff_t dst_rs,
                       ptrdiff_t dst_cs);

    /* first[r * dst_rs + j] = src[r * src_rs + 2 * j], second[...] = src[r * src_rs + 2 * j + 1],
     * for r < rows and all elements of src that are among the first `cols` of a row. */
    void (*halves)(ptrdiff_t rows, ptrdiff_t cols, const void *src, ptrdiff_t src_rs, void *first,
                   void *second, ptrdiff_t dst_rs);

    /* What an axis of Winograd's algorithm may be; the last has no outputs. */
    const leaf_winograd *winograd;

    /* dst[t * ds + k * width + j] = src[j * ld + taps * k + t], or 0 for j >= rows,
     * for t < taps, k < depths, j < width. */
    void (*spread)(ptrdiff_t rows, ptrdiff_t width, ptrdiff_t depths, ptrdiff_t taps,
                   const void *src, ptrdiff_t ld, double *dst, ptrdiff_t ds);

    /* Sums of products. */
    leaf_dots dots;

    /* dst[k * dst_rs + j] = src[at[k] + j], or 0 where at[k] is LEAF_OUTSIDE
     * for k < depth, j < n; n > 0. */
    void (*pack)(ptrdiff_t depth, ptrdiff_t n, const void *src, const ptrdiff_t *at, void *dst,
                 ptrdiff_t dst_rs);

    /* dst[r * dst_rs + j] = 0   for r < rows, j < cols. */
    void (*clear)(void *dst, ptrdiff_t dst_rs, ptrdiff_t rows, ptrdiff_t cols);

    /* Planes with zeros around their rows: for p < planes, from dst + p * dst_ps on, `before` zeros,
     * then src[p * src_ps + r * src_rs + j], j < cols, for r < rows, dst_rs apart with zeros
     * between, then `after` zeros.  rows > 0. */
    void (*pad)(ptrdiff_t planes, ptrdiff_t rows, ptrdiff_t cols, const void *src,
                ptrdiff_t src_ps, ptrdiff_t src_rs, void *dst, ptrdiff_t dst_ps, ptrdiff_t dst_rs,
                ptrdiff_t before, ptrdiff_t after);

    /* dst[r * dst_rs + j] = src[r, j]: user array (byte strides) to workspace, converting. */
    void (*load[LEAF_STORAGES])(void *dst, ptrdiff_t dst_rs, const char *src, ptrdiff_t src_rs,
                                ptrdiff_t src_cs, ptrdiff_t rows, ptrdiff_t cols);

    /* dst[r, j] = src[r * src_rs + j]: workspace to user array (byte strides), rounding once. */
    void (*store[LEAF_STORAGES])(char *dst, ptrdiff_t dst_rs, ptrdiff_t dst_cs, const void *src,
                                 ptrdiff_t src_rs, ptrdiff_t rows, ptrdiff_t cols);

    /* What `sample` reads for bilinear samples of a plane, j < n, at (base + o[i * ld + j]) +
     * v[i * ld + j] along axis i: byte offsets, and coefficients of `size` bytes, float or double,
     * times m[j] if there is m; outside the plane LEAF_OUTSIDE and 0 * m[j].  NULL in the float
     * table: coordinates are double. */
    void (*locate)(ptrdiff_t n, const double *o, const double *v, const double *m,
                   const leaf_plane *plane, ptrdiff_t ld, ptrdiff_t *offset, void *coef,
                   ptrdiff_t size);

    /* dst[j] = sum_q coef[q * ld + j] * src[offset[q * ld + j]]   for j < n, corners in order. */
    void (*sample[LEAF_STORAGES])(ptrdiff_t n, ptrdiff_t corners, ptrdiff_t ld,
                                  const ptrdiff_t *offset, const void *coef, const char *src,
                                  void *dst);

    /* The same where channels lie next to each other in the compute type:
     * dst[j * dst_rs + c] = sum_q coef[q * ld + j] * (src + offset[q * ld + j])[c]
     * for j < n, c < channels; corners is 2, 4 or 8.  If `room`, up to a vector past the last of
     * few channels is read, and written before the next pixel is. */
    void (*sample_channels)(ptrdiff_t n, ptrdiff_t channels, ptrdiff_t corners, ptrdiff_t ld,
                            const ptrdiff_t *offset, const void *coef, const char *src, void *dst,
                            ptrdiff_t dst_rs, int room);

    /* dst[j * dst_rs + r] = src[r * src_rs + j]   for r < rows, j < cols. */
    void (*transpose)(ptrdiff_t rows, ptrdiff_t cols, const void *src, ptrdiff_t src_rs, void *dst,
                      ptrdiff_t dst_rs);

    /* dst[r * dst_rs + j * classes + q] = src[r * src_rs + q * src_qs + j]
     * for r < rows, j < cols, q < classes, and for j = cols, q < rest.  Up to a vector past the
     * last column is read. */
    void (*interleave)(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t classes, ptrdiff_t rest,
                       const void *src, ptrdiff_t src_rs, ptrdiff_t src_qs, void *dst,
                       ptrdiff_t dst_rs);

    /* dst[r * dst_rs + (j * classes + q) * run + i] = src[r * src_rs + q * src_qs + j * run + i]
     * for r < rows, i < run, q < classes and all j: the first `cols` of each row.  Up to a vector past
     * what these are made of is read. */
    void (*interleave_runs)(ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t classes, ptrdiff_t run,
                            const void *src, ptrdiff_t src_rs, ptrdiff_t src_qs, void *dst,
                            ptrdiff_t dst_rs);

    /* acc[s * ld + j] += g[j] * sum_q coef[(s * corners + q) * ld + j] * src[offset[q * ld + j]]
     * for s < sets, j < n: what the gradients of coordinates and mask are made of. */
    void (*sample_dot[LEAF_STORAGES])(ptrdiff_t n, ptrdiff_t sets, ptrdiff_t corners,
                                      ptrdiff_t ld, const ptrdiff_t *offset, const void *coef,
                                      const char *src, const void *g, void *acc);

    /* dst[offset[q * ld + j]] += coef[q * ld + j] * g[j]   for j < n in order, then q;
     * byte offsets outside [lo, hi) are passed over. */
    void (*scatter)(ptrdiff_t n, ptrdiff_t corners, ptrdiff_t ld, const ptrdiff_t *offset,
                    const void *coef, const void *g, char *dst, ptrdiff_t lo, ptrdiff_t hi);

    /* Spots with their channels next to each other: corner q of spot j is pixel at[j * step + q] of
     * an image, negative if outside; its channels are at pixel * pitch.  corners is 2, 4 or 8.
     * dots[j * corners + q] = sum over c < channels of g[j * g_rs + c] * src[corner q][c], j < n, in
     * lanes of 64 bytes that are then added pairwise; 0 for a corner outside. */
    void (*deform_dots)(ptrdiff_t n, ptrdiff_t channels, ptrdiff_t corners, ptrdiff_t step,
                        const ptrdiff_t *at, const void *src, ptrdiff_t pitch, const void *g,
                        ptrdiff_t g_rs, void *dots);

    /* dst[j * dst_rs + c] = sum_q coef[j * step + q] * src[corner q][c]   for j < n, c < channels:
     * a chain over the corners in order, those outside reading as zero. */
    void (*deform_samples)(ptrdiff_t n, ptrdiff_t channels, ptrdiff_t corners, ptrdiff_t step,
                           const ptrdiff_t *at, const void *coef, const void *src,
                           ptrdiff_t pitch, void *dst, ptrdiff_t dst_rs);

    /* dst[corner q][c] += coef[i * corners + q] * g[j * g_ps + t * g_ts + c]   for j < n in order,
     * then t < taps, of spot i = j * taps + t; c < channels; corners outside are passed over. */
    void (*deform_scatter)(ptrdiff_t n, ptrdiff_t taps, ptrdiff_t channels, ptrdiff_t corners,
                           const ptrdiff_t *at, const void *coef, const void *g, ptrdiff_t g_ps,
                           ptrdiff_t g_ts, void *dst, ptrdiff_t pitch);

    /* dst[j * step] += src[j]   for j < n. */
    void (*add_strided)(ptrdiff_t n, const void *src, void *dst, ptrdiff_t step);

    /* sum of src[j], j < n: in lanes of 64 bytes, the lanes then added pairwise. */
    double (*sum)(ptrdiff_t n, const void *src);

    /* How fast this machine multiplies and adds: `rounds` rounds of as many independent chains as
     * fill the pipelines, in registers alone.  Writes something that depends on all of them to
     * out[0]; returns the operations done, a multiply-add being two. */
    double (*peak)(ptrdiff_t rounds, void *out);

    /* dst[j] = a[j] + scale * b[j]   for j < n: the triad of the STREAM benchmark. */
    void (*triad)(ptrdiff_t n, double scale, const void *a, const void *b, void *dst);

    /* The same bits, nothing being read of lanes from `last` on in the last strip. */
    leaf_dots dots_exact;

    /* acc[t] = sum of the LEAF_LANE_BYTES of acc from t * LEAF_LANE_BYTES on, for t < count:
     * neighbours are added until one is left. */
    void (*fold)(ptrdiff_t count, void *acc);
} leaf_table;

/* float and double tables of one instruction set. */
typedef struct leaf_isa {
    const char *name;
    const leaf_table *f32, *f64;
    int (*supported)(void); /* by this CPU and operating system */
    const struct leaf_isa *narrower; /* with vectors of half the length and the same results */
} leaf_isa;

/* Instruction sets compiled into this build, best first; ends with {NULL}. */
extern const leaf_isa leaf_built[];

#endif
