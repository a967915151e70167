# The leaf kernels (leaf.h) as Cython sees them, and the tables picked for this machine.

from libc.stdint cimport int32_t

cdef extern from "leaf.h" nogil:
    enum:
        LEAF_SWAPPED
        LEAF_STORAGES
        LEAF_LANE_BYTES
        LEAF_CHAIN
        LEAF_DOTS_TAPS
        LEAF_COLUMN_TAPS
        LEAF_LANE_ROWS
        LEAF_PAIR_ROWS
        LEAF_ROWS_LEAST
        LEAF_MASKED_SPAN
        LEAF_MASKED_TALL
        LEAF_KERNELS
        LEAF_LONG
    Py_ssize_t LEAF_OUTSIDE

    ctypedef void (*leaf_load)(
        void* dst, Py_ssize_t dst_rs, const char* src, Py_ssize_t src_rs, Py_ssize_t src_cs,
        Py_ssize_t rows, Py_ssize_t cols) noexcept nogil
    ctypedef void (*leaf_store)(
        char* dst, Py_ssize_t dst_rs, Py_ssize_t dst_cs, const void* src, Py_ssize_t src_rs,
        Py_ssize_t rows, Py_ssize_t cols) noexcept nogil

    Py_ssize_t LEAF_ROWS(Py_ssize_t step, Py_ssize_t more, Py_ssize_t fewer) noexcept nogil
    bint leaf_has_rows(Py_ssize_t kind) noexcept nogil
    Py_ssize_t LEAF_WIDE(Py_ssize_t m, Py_ssize_t mr) noexcept nogil

    ctypedef struct leaf_plane:
        Py_ssize_t size[2]
        Py_ssize_t stride[2]
        double base[2]
    ctypedef struct leaf_column:
        Py_ssize_t src
        Py_ssize_t weight
        Py_ssize_t taps
        Py_ssize_t chain
        Py_ssize_t lines
        Py_ssize_t pixel

    ctypedef struct leaf_soon:
        const char* at
        Py_ssize_t step, rows, bytes, done, each

    ctypedef struct leaf_ahead:
        const char* read
        const char* write
        Py_ssize_t read_bytes
        Py_ssize_t write_bytes

    ctypedef struct leaf_winograd:
        Py_ssize_t stride
        Py_ssize_t taps
        Py_ssize_t outputs
        Py_ssize_t inputs
        Py_ssize_t distinct
        void (*rows)(
            Py_ssize_t cols, const void* const* src, void* dst, Py_ssize_t rs) noexcept nogil
        void (*columns)(
            Py_ssize_t tiles, Py_ssize_t lines, const void* src, Py_ssize_t rs,
            const Py_ssize_t* at, Py_ssize_t step, void* dst, Py_ssize_t fs) noexcept nogil
        void (*down)(
            Py_ssize_t tiles, Py_ssize_t lines, const void* src, Py_ssize_t fs, void* dst,
            Py_ssize_t ds) noexcept nogil
        void (*along)(
            Py_ssize_t tiles, Py_ssize_t lines, const void* src, Py_ssize_t fs, const void* bias,
            bint biases, void* dst, Py_ssize_t rs, Py_ssize_t cs) noexcept nogil
        void (*weights)(
            Py_ssize_t count, const double* src, Py_ssize_t ss, double* dst,
            Py_ssize_t ds) noexcept nogil
        void (*last_weights)(
            Py_ssize_t count, const double* src, Py_ssize_t ss, void* dst,
            Py_ssize_t ds) noexcept nogil
        void (*lift_rows)(
            Py_ssize_t cols, const void* const* src, void* dst, Py_ssize_t rs) noexcept nogil
        void (*lift_columns)(
            Py_ssize_t lanes, Py_ssize_t lines, const void* src, Py_ssize_t rs, Py_ssize_t step,
            void* dst, Py_ssize_t fs) noexcept nogil
        void (*fold)(
            Py_ssize_t count, Py_ssize_t lines, const void* src, Py_ssize_t fs, void* dst,
            Py_ssize_t ds) noexcept nogil

    ctypedef void (*leaf_dots)(
        Py_ssize_t rows, Py_ssize_t strips, Py_ssize_t lanes, Py_ssize_t last,
        Py_ssize_t columns, const leaf_column* column, const void* src, Py_ssize_t src_rs,
        Py_ssize_t src_cs, const void* g, Py_ssize_t g_rs, Py_ssize_t g_cs, void* acc,
        Py_ssize_t acc_ts, Py_ssize_t ws) noexcept nogil

    ctypedef struct leaf_table:
        const char* isa
        Py_ssize_t esize
        Py_ssize_t mr
        Py_ssize_t nr
        Py_ssize_t vl
        Py_ssize_t least
        void (*gemm)(
            Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const void* a, Py_ssize_t a_rs,
            const void* b, Py_ssize_t b_ks, Py_ssize_t b_ps, void* c, Py_ssize_t c_rs,
            const void* bias, int add, leaf_soon* soon) noexcept nogil
        void (*gemm_at)(
            Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const void* a, Py_ssize_t a_rs,
            const void* b, const Py_ssize_t* b_at, void* c, Py_ssize_t c_rs, const void* bias,
            int add) noexcept nogil
        void (*gemm_narrow)(
            Py_ssize_t m, Py_ssize_t n, Py_ssize_t k, const void* a, Py_ssize_t block,
            const void* b, Py_ssize_t b_ks, void* c, Py_ssize_t c_rs, int add) noexcept nogil
        void (*gemm_lanes)(
            Py_ssize_t lanes, Py_ssize_t n, Py_ssize_t k, Py_ssize_t run, const void* a,
            const void* b, const Py_ssize_t* b_at, const Py_ssize_t* pixel, void* c,
            const void* bias, int add, leaf_soon* soon) noexcept nogil
        void (*gemm_some)(
            Py_ssize_t lanes, Py_ssize_t n, Py_ssize_t k, const void* a, const int32_t* which,
            const void* b, const Py_ssize_t* b_at, const Py_ssize_t* pixel,
            const Py_ssize_t* place, void* c, const void* bias, int add,
            leaf_soon* soon) noexcept nogil
        void (*gemm_even)(
            Py_ssize_t lanes, Py_ssize_t n, Py_ssize_t k, const void* a, const void* b,
            Py_ssize_t b_ps, void* c, int add) noexcept nogil
        void (*taps)(
            Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t columns, const leaf_column* column,
            const void* src, Py_ssize_t src_rs, const void* w, Py_ssize_t ws, const void* bias,
            void* dst, Py_ssize_t dst_rs, const leaf_ahead* ahead) noexcept nogil
        void (*taps_pair)(
            Py_ssize_t rows, Py_ssize_t length, Py_ssize_t first, Py_ssize_t second,
            const leaf_column* column, const void* src, Py_ssize_t src_rs, const void* w,
            const void* bias, void* dst, Py_ssize_t dst_rs, Py_ssize_t ahead) noexcept nogil
        void (*taps_rows)(
            Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t kind, Py_ssize_t columns,
            const leaf_column* column, const void* const* line, Py_ssize_t line_rs, const void* w,
            Py_ssize_t ws, const void* bias, void* dst, Py_ssize_t dst_rs) noexcept nogil
        void (*taps_masked)(
            Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t columns, const leaf_column* column,
            Py_ssize_t step, const void* const* line, Py_ssize_t first, Py_ssize_t width,
            const void* w, Py_ssize_t ws, const void* bias, void* dst,
            Py_ssize_t dst_rs, const leaf_ahead* ahead) noexcept nogil
        void (*fetch)(const void* p, Py_ssize_t bytes, int written) noexcept nogil
        void (*taps_lanes)(
            Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t lanes, Py_ssize_t columns,
            const leaf_column* column, Py_ssize_t step, Py_ssize_t width, const void* src,
            Py_ssize_t src_rs, Py_ssize_t src_cs, const void* w, Py_ssize_t ws, const void* bias,
            void* dst, Py_ssize_t dst_rs, Py_ssize_t dst_cs) noexcept nogil
        void (*halves)(
            Py_ssize_t rows, Py_ssize_t cols, const void* src, Py_ssize_t src_rs, void* first,
            void* second, Py_ssize_t dst_rs) noexcept nogil
        const leaf_winograd* winograd
        void (*spread)(
            Py_ssize_t rows, Py_ssize_t width, Py_ssize_t depths, Py_ssize_t taps,
            const void* src, Py_ssize_t ld, double* dst, Py_ssize_t ds) noexcept nogil
        leaf_dots dots
        void (*pack)(
            Py_ssize_t depth, Py_ssize_t n, const void* src, const Py_ssize_t* at, void* dst,
            Py_ssize_t dst_rs) noexcept nogil
        void (*clear)(
            void* dst, Py_ssize_t dst_rs, Py_ssize_t rows, Py_ssize_t cols) noexcept nogil
        void (*pad)(
            Py_ssize_t planes, Py_ssize_t rows, Py_ssize_t cols, const void* src,
            Py_ssize_t src_ps, Py_ssize_t src_rs, void* dst, Py_ssize_t dst_ps, Py_ssize_t dst_rs,
            Py_ssize_t before, Py_ssize_t after) noexcept nogil
        leaf_load load[8]
        leaf_store store[8]
        void (*locate)(
            Py_ssize_t n, const double* o, const double* v, const double* m,
            const leaf_plane* plane, Py_ssize_t ld, Py_ssize_t* offset, void* coef,
            Py_ssize_t size) noexcept nogil
        void (*sample[8])(
            Py_ssize_t n, Py_ssize_t corners, Py_ssize_t ld, const Py_ssize_t* offset,
            const void* coef, const char* src, void* dst) noexcept nogil
        void (*sample_channels)(
            Py_ssize_t n, Py_ssize_t channels, Py_ssize_t corners, Py_ssize_t ld,
            const Py_ssize_t* offset, const void* coef, const char* src, void* dst,
            Py_ssize_t dst_rs, bint room) noexcept nogil
        void (*transpose)(
            Py_ssize_t rows, Py_ssize_t cols, const void* src, Py_ssize_t src_rs, void* dst,
            Py_ssize_t dst_rs) noexcept nogil
        void (*interleave)(
            Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t classes, Py_ssize_t rest,
            const void* src, Py_ssize_t src_rs, Py_ssize_t src_qs, void* dst,
            Py_ssize_t dst_rs) noexcept nogil
        void (*interleave_runs)(
            Py_ssize_t rows, Py_ssize_t cols, Py_ssize_t classes, Py_ssize_t run,
            const void* src, Py_ssize_t src_rs, Py_ssize_t src_qs, void* dst,
            Py_ssize_t dst_rs) noexcept nogil
        void (*sample_dot[8])(
            Py_ssize_t n, Py_ssize_t sets, Py_ssize_t corners, Py_ssize_t ld,
            const Py_ssize_t* offset, const void* coef, const char* src, const void* g,
            void* acc) noexcept nogil
        void (*scatter)(
            Py_ssize_t n, Py_ssize_t corners, Py_ssize_t ld, const Py_ssize_t* offset,
            const void* coef, const void* g, char* dst, Py_ssize_t lo, Py_ssize_t hi) noexcept nogil
        void (*deform_dots)(
            Py_ssize_t n, Py_ssize_t channels, Py_ssize_t corners, Py_ssize_t step,
            const Py_ssize_t* at, const void* src, Py_ssize_t pitch, const void* g,
            Py_ssize_t g_rs, void* dots) noexcept nogil
        void (*deform_samples)(
            Py_ssize_t n, Py_ssize_t channels, Py_ssize_t corners, Py_ssize_t step,
            const Py_ssize_t* at, const void* coef, const void* src, Py_ssize_t pitch, void* dst,
            Py_ssize_t dst_rs) noexcept nogil
        void (*deform_scatter)(
            Py_ssize_t n, Py_ssize_t taps, Py_ssize_t channels, Py_ssize_t corners,
            const Py_ssize_t* at, const void* coef, const void* g, Py_ssize_t g_ps,
            Py_ssize_t g_ts, void* dst, Py_ssize_t pitch) noexcept nogil
        void (*add_strided)(
            Py_ssize_t n, const void* src, void* dst, Py_ssize_t step) noexcept nogil
        double (*sum)(Py_ssize_t n, const void* src) noexcept nogil
        double (*peak)(Py_ssize_t rounds, void* out) noexcept nogil
        void (*triad)(
            Py_ssize_t n, double scale, const void* a, const void* b, void* dst) noexcept nogil
        leaf_dots dots_exact
        void (*fold)(Py_ssize_t count, void* acc) noexcept nogil

    ctypedef struct leaf_isa:
        const char* name
        const leaf_table* f32
        const leaf_table* f64
        int (*supported)() noexcept nogil
        const leaf_isa* narrower

    const leaf_isa leaf_built[]

# The table for a compute type: 0 float32, 1 float64 (the storage codes of pyconv.dtypes).
cdef const leaf_table* leaf(int compute) noexcept nogil
# The one with vectors half as long and the same results, or NULL.
cdef const leaf_table* narrower_leaf(const leaf_table* table) noexcept nogil
# The one for vectors of so many rows.
cdef const leaf_table* leaf_of_lanes(int compute, Py_ssize_t rows) noexcept nogil

cdef extern from *:
    # Asks for the cache line of an address, which need not be valid; locality 3: to stay longest.
    void __builtin_prefetch(const void* address, int writing, int locality) noexcept nogil
