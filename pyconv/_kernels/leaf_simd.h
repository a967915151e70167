/* The vector vocabulary of the leaf kernels, for one instruction set and one compute type.
 *
 * Included once per (instruction set, type) with LEAF_ISA_* and LEAF_DOUBLE set.  Defines
 *   T, VEC, VL          element, vector, elements per vector
 *   MR, NV              micro-tile: rows, vectors per row
 *   VFMAS(nv, c, x, t)  where defined: c[v] += x[v] * t for v < nv <= 3, with the element t of
 *                       memory, where it stands in the code and with one register more: compilers
 *                       run out of registers when they unroll depths
 *   VFMAS_AT(nv, c, x, p, i, n) VLOAD_AT(x, p, i, n)  the same of element i + n from p, and those
 *                       that follow, n known when compiled: compilers add or scale i apart.  What
 *                       they read must not be written in the same function
 *   CHAINS              multiply-adds in flight that hide their latency, two units or more
 *   VLOAD VSTORE VSET1 VZERO VADD VFMA(a, b, c) = a * b + c, and SFMA, its scalar twin
 *   VADDTO(c, s) SADDTO c + s, with the bits of s where both are NaN: compilers exchange operands
 *   VEVEN VODD          every second element of two vectors
 *   VLOW VHIGH          elements of two vectors in turn: of their lower, of their upper halves
 *   VLANELOW VLANEHIGH  the same within each lane of 16 bytes
 *   VLANEEVEN VLANEODD  every second element of two vectors, within each lane of 16 bytes
 *   VINORDER(x)         the order of VEVEN, from that of VLANEEVEN
 *   VNEXT(x)            each lane's next one; the first in the last lane
 *   VLANES(p, step)     a vector whose lanes are read from p, p + step, ...
 *   VLANESAT(p, at, n)  the same from p + at[0], p + at[n], ...
 *   VLANESTORE(p, step, x)  the lanes of x to p, p + step, ...
 *   VLOADFEW(p, n)      where defined: the n < VL elements at p, then zeros
 *   VMASK               where defined: a lane's bit of a mask, lowest first, for
 *   VLOADPART(m, p)     the lanes that are set from p, zeros in the others, nothing else read
 *   VSTOREPART(p, m, x)  to p what is set
 *   HEC HLOAD HSTORE .. where defined: the same of vectors half as long; HLOWER(x), half of x
 *   VKEEP(x)            x is used from a register, not loaded again for each use
 * A fused VFMA goes with a fused SFMA, so a tail element has the bits of a vector lane.
 */
#undef T
#undef VEC
#undef VL
#undef MR
#undef NV
#undef CHAINS
#undef LANE_PIXELS
#undef VFMAS
#undef VFMAS_AT
#undef VLOAD_AT
#undef LEAF_SCALE
#undef LEAF_ONE
#undef LEAF_FMA
#undef LEAF_FMAS
#undef VADDTO
#undef SADDTO
#undef LEAF_TYPED
#undef VLOAD
#undef VSTORE
#undef VSET1
#undef VZERO
#undef VADD
#undef VFMA
#undef SFMA
#undef VSHUFFLE
#undef QSHUFFLE
#undef VEVEN
#undef VODD
#undef VLOW
#undef VHIGH
#undef VLANELOW
#undef VLANEHIGH
#undef VLANESFROM
#undef VLANESTORE
#undef VLANES
#undef VLANESAT
#undef VLANEEVEN
#undef VLANEODD
#undef VKEEP
#undef VINORDER
#undef VNEXT
#undef VLOADFEW
#undef VMASK
#undef VLOADPART
#undef VSTOREPART
#undef HEC
#undef HLOAD
#undef HSTORE
#undef HL
#undef HMASK
#undef HLOADPART
#undef HSTOREPART
#undef HADD
#undef HLOWER
#undef HSET1
#undef HZERO
#undef HFMA
#undef HADDTO

#ifdef LEAF_DOUBLE
#define T double
#else
#define T float
#endif

#if defined(LEAF_ISA_AVX512)

#define MR 14
#define NV 2
#define CHAINS 12
#define LANE_PIXELS(halves) 8
#ifdef LEAF_DOUBLE
#define VEC __m512d
#define VL 8
#define VLOAD(p) _mm512_loadu_pd(p)
#define VSTORE(p, v) _mm512_storeu_pd(p, v)
#define VSET1(x) _mm512_set1_pd(x)
#define VZERO() _mm512_setzero_pd()
#define VADD(a, b) _mm512_add_pd(a, b)
#define VFMA(a, b, c) _mm512_fmadd_pd(a, b, c)
#define VMASK __mmask8
#define VLOADPART(m, p) _mm512_maskz_loadu_pd(m, p)
#define VSTOREPART(p, m, x) _mm512_mask_storeu_pd(p, m, x)
#define VLOADFEW(p, n) VLOADPART((VMASK)((1u << (n)) - 1), p)
#define HEC __m256d
#define HLOAD(p) _mm256_loadu_pd(p)
#define HSTORE(p, v) _mm256_storeu_pd(p, v)
#define HL 4
#define HMASK __mmask8
#define HLOADPART(m, p) _mm256_maskz_loadu_pd(m, p)
#define HSTOREPART(p, m, x) _mm256_mask_storeu_pd(p, m, x)
#define HADD(a, b) _mm256_add_pd(a, b)
#define HLOWER(x) _mm512_castpd512_pd256(x)
#define HSET1(x) _mm256_set1_pd(x)
#define HZERO() _mm256_setzero_pd()
#define HFMA(a, b, c) _mm256_fmadd_pd(a, b, c)
#define VLANELOW(a, b) _mm512_unpacklo_pd(a, b)
#define VLANEHIGH(a, b) _mm512_unpackhi_pd(a, b)
#define VLANESFROM(p, q, r, s)                                                                   \
    _mm512_insertf64x4(                                                                          \
        _mm512_castpd256_pd512(_mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(p)),     \
                                                    _mm_loadu_pd(q), 1)),                        \
        _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(r)), _mm_loadu_pd(s), 1), 1)
#define VLANESTORE(p, step, x)                                                                   \
    (_mm_storeu_pd(p, _mm512_castpd512_pd128(x)),                                                \
     _mm_storeu_pd((p) + (step), _mm512_extractf64x2_pd(x, 1)),                                  \
     _mm_storeu_pd((p) + 2 * (step), _mm512_extractf64x2_pd(x, 2)),                              \
     _mm_storeu_pd((p) + 3 * (step), _mm512_extractf64x2_pd(x, 3)))
#define SFMA(a, b, c) __builtin_fma(a, b, c)
#else
#define VEC __m512
#define VL 16
#define VLOAD(p) _mm512_loadu_ps(p)
#define VSTORE(p, v) _mm512_storeu_ps(p, v)
#define VSET1(x) _mm512_set1_ps(x)
#define VZERO() _mm512_setzero_ps()
#define VADD(a, b) _mm512_add_ps(a, b)
#define VFMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define VMASK __mmask16
#define VLOADPART(m, p) _mm512_maskz_loadu_ps(m, p)
#define VSTOREPART(p, m, x) _mm512_mask_storeu_ps(p, m, x)
#define VLOADFEW(p, n) VLOADPART((VMASK)((1u << (n)) - 1), p)
#define HEC __m256
#define HLOAD(p) _mm256_loadu_ps(p)
#define HSTORE(p, v) _mm256_storeu_ps(p, v)
#define HL 8
#define HMASK __mmask8
#define HLOADPART(m, p) _mm256_maskz_loadu_ps(m, p)
#define HSTOREPART(p, m, x) _mm256_mask_storeu_ps(p, m, x)
#define HADD(a, b) _mm256_add_ps(a, b)
#define HLOWER(x) _mm512_castps512_ps256(x)
#define HSET1(x) _mm256_set1_ps(x)
#define HZERO() _mm256_setzero_ps()
#define HFMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define VLANELOW(a, b) _mm512_unpacklo_ps(a, b)
#define VLANEHIGH(a, b) _mm512_unpackhi_ps(a, b)
#define VLANESFROM(p, q, r, s)                                                                   \
    _mm512_castpd_ps(_mm512_insertf64x4(                                                         \
        _mm512_castps_pd(_mm512_castps256_ps512(_mm256_insertf128_ps(                            \
            _mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(q), 1))),                      \
        _mm256_castps_pd(_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(r)),           \
                                              _mm_loadu_ps(s), 1)), 1))
#define VLANESTORE(p, step, x)                                                                   \
    (_mm_storeu_ps(p, _mm512_castps512_ps128(x)),                                                \
     _mm_storeu_ps((p) + (step), _mm512_extractf32x4_ps(x, 1)),                                  \
     _mm_storeu_ps((p) + 2 * (step), _mm512_extractf32x4_ps(x, 2)),                              \
     _mm_storeu_ps((p) + 3 * (step), _mm512_extractf32x4_ps(x, 3)))
#define SFMA(a, b, c) __builtin_fmaf(a, b, c)
#endif

#elif defined(LEAF_ISA_AVX2)

#define MR 6
#define NV 2
#define CHAINS 12
#define LANE_PIXELS(halves) ((halves) == 1 ? 8 : (halves) == 2 ? 6 : 4)
#ifdef LEAF_DOUBLE
#define VEC __m256d
#define VL 4
#define VLOAD(p) _mm256_loadu_pd(p)
#define VSTORE(p, v) _mm256_storeu_pd(p, v)
#define VSET1(x) _mm256_set1_pd(x)
#define VZERO() _mm256_setzero_pd()
#define VADD(a, b) _mm256_add_pd(a, b)
#define VFMA(a, b, c) _mm256_fmadd_pd(a, b, c)
#define VLOADFEW(p, n)                                                                           \
    _mm256_maskload_pd(p, _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3)))
#define VLANELOW(a, b) _mm256_unpacklo_pd(a, b)
#define VLANEHIGH(a, b) _mm256_unpackhi_pd(a, b)
#define VLANESFROM(p, q, r, s)                                                                   \
    _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(p)), _mm_loadu_pd(q), 1)
#define VLANESTORE(p, step, x)                                                                   \
    (_mm_storeu_pd(p, _mm256_castpd256_pd128(x)),                                                \
     _mm_storeu_pd((p) + (step), _mm256_extractf128_pd(x, 1)))
#define SFMA(a, b, c) __builtin_fma(a, b, c)
#else
#define VEC __m256
#define VL 8
#define VLOAD(p) _mm256_loadu_ps(p)
#define VSTORE(p, v) _mm256_storeu_ps(p, v)
#define VSET1(x) _mm256_set1_ps(x)
#define VZERO() _mm256_setzero_ps()
#define VADD(a, b) _mm256_add_ps(a, b)
#define VFMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define VLOADFEW(p, n)                                                                           \
    _mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(n)),                        \
                                             _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)))
#define VLANELOW(a, b) _mm256_unpacklo_ps(a, b)
#define VLANEHIGH(a, b) _mm256_unpackhi_ps(a, b)
#define VLANESFROM(p, q, r, s)                                                                   \
    _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(q), 1)
#define VLANESTORE(p, step, x)                                                                   \
    (_mm_storeu_ps(p, _mm256_castps256_ps128(x)),                                                \
     _mm_storeu_ps((p) + (step), _mm256_extractf128_ps(x, 1)))
#define SFMA(a, b, c) __builtin_fmaf(a, b, c)
#endif

#elif defined(LEAF_ISA_NEON)

#define MR 6
#define NV 4
#define CHAINS 24
#define LANE_PIXELS(halves) ((halves) == 1 ? 8 : (halves) == 2 ? 6 : 4)
#ifdef LEAF_DOUBLE
#define VEC float64x2_t
#define VL 2
#define VLOAD(p) vld1q_f64(p)
#define VSTORE(p, v) vst1q_f64(p, v)
#define VSET1(x) vdupq_n_f64(x)
#define VZERO() vdupq_n_f64(0.0)
#define VADD(a, b) vaddq_f64(a, b)
#define VFMA(a, b, c) vfmaq_f64(c, a, b)
#define SFMA(a, b, c) __builtin_fma(a, b, c)
#else
#define VEC float32x4_t
#define VL 4
#define VLOAD(p) vld1q_f32(p)
#define VSTORE(p, v) vst1q_f32(p, v)
#define VSET1(x) vdupq_n_f32(x)
#define VZERO() vdupq_n_f32(0.0f)
#define VADD(a, b) vaddq_f32(a, b)
#define VFMA(a, b, c) vfmaq_f32(c, a, b)
#define SFMA(a, b, c) __builtin_fmaf(a, b, c)
#endif

#else /* baseline: 16-byte vectors in the compilers' own notation, no fused multiply-add */

#define MR 4
#define NV 2
#define CHAINS 12
#define LANE_PIXELS(halves) ((halves) == 1 ? 8 : (halves) == 2 ? 4 : 3)
#ifdef LEAF_DOUBLE
typedef double leaf_vec_f64 __attribute__((vector_size(16)));
typedef double leaf_uvec_f64 __attribute__((vector_size(16), aligned(8), may_alias));
#define VEC leaf_vec_f64
#define UVEC leaf_uvec_f64
#define VL 2
#define VSET1(x) ((VEC){x, x})
#define VZERO() ((VEC){0.0, 0.0})
#else
typedef float leaf_vec_f32 __attribute__((vector_size(16)));
typedef float leaf_uvec_f32 __attribute__((vector_size(16), aligned(4), may_alias));
#define VEC leaf_vec_f32
#define UVEC leaf_uvec_f32
#define VL 4
#define VSET1(x) ((VEC){x, x, x, x})
#define VZERO() ((VEC){0.0f, 0.0f, 0.0f, 0.0f})
#endif
#define VLOAD(p) ((VEC)(*(const UVEC *)(p)))
#define VSTORE(p, v) (*(UVEC *)(p) = (v))
#define VADD(a, b) ((a) + (b))
#define VFMA(a, b, c) ((a) * (b) + (c))
#define SFMA(a, b, c) ((a) * (b) + (c))

#endif

#if defined(LEAF_ISA_AVX2) || defined(LEAF_ISA_AVX512)
#ifdef LEAF_DOUBLE
#define LEAF_TYPED(name, kind) name kind "d"
#else
#define LEAF_TYPED(name, kind) name kind "s"
#endif
static inline __attribute__((always_inline)) VEC LEAF_CAT(vaddto, LEAF_NAME, LEAF_TYPE)(VEC c, VEC s) {
    __asm__(LEAF_TYPED("vadd", "p") " %[c], %[s], %[s]" : [s] "+v"(s) : [c] "v"(c));
    return s;
}
static inline __attribute__((always_inline)) T LEAF_CAT(saddto, LEAF_NAME, LEAF_TYPE)(T c, T s) {
    __asm__(LEAF_TYPED("vadd", "s") " %[c], %[s], %[s]" : [s] "+v"(s) : [c] "v"(c));
    return s;
}
#define VADDTO(c, s) LEAF_CAT(vaddto, LEAF_NAME, LEAF_TYPE)(c, s)
#define SADDTO(c, s) LEAF_CAT(saddto, LEAF_NAME, LEAF_TYPE)(c, s)
#ifdef HEC
static inline __attribute__((always_inline)) HEC LEAF_CAT(haddto, LEAF_NAME, LEAF_TYPE)(HEC c, HEC s) {
    __asm__(LEAF_TYPED("vadd", "p") " %[c], %[s], %[s]" : [s] "+v"(s) : [c] "v"(c));
    return s;
}
#define HADDTO(c, s) LEAF_CAT(haddto, LEAF_NAME, LEAF_TYPE)(c, s)
#endif
#elif defined(LEAF_ISA_NEON)
#ifdef LEAF_DOUBLE
#define LEAF_LANES(x) "%[" x "].2d"
#define LEAF_SINGLE(x) "%d[" x "]"
#else
#define LEAF_LANES(x) "%[" x "].4s"
#define LEAF_SINGLE(x) "%s[" x "]"
#endif
static inline __attribute__((always_inline)) VEC LEAF_CAT(vaddto, LEAF_NAME, LEAF_TYPE)(VEC c, VEC s) {
    __asm__("fadd " LEAF_LANES("s") ", " LEAF_LANES("s") ", " LEAF_LANES("c")
            : [s] "+w"(s) : [c] "w"(c));
    return s;
}
static inline __attribute__((always_inline)) T LEAF_CAT(saddto, LEAF_NAME, LEAF_TYPE)(T c, T s) {
    __asm__("fadd " LEAF_SINGLE("s") ", " LEAF_SINGLE("s") ", " LEAF_SINGLE("c")
            : [s] "+w"(s) : [c] "w"(c));
    return s;
}
#undef LEAF_LANES
#undef LEAF_SINGLE
#define VADDTO(c, s) LEAF_CAT(vaddto, LEAF_NAME, LEAF_TYPE)(c, s)
#define SADDTO(c, s) LEAF_CAT(saddto, LEAF_NAME, LEAF_TYPE)(c, s)
#else
#define VADDTO(c, s) VADD(c, s)
#define SADDTO(c, s) ((c) + (s))
#endif
#ifdef LEAF_ISA_AVX2
#ifdef LEAF_DOUBLE
#define LEAF_SCALE "8"
#else
#define LEAF_SCALE "4"
#endif
#define VLOAD_AT(x, from, at, next)                                                               \
    __asm__(LEAF_TYPED("vmovu", "p") " %c[n](%[p], %[i], " LEAF_SCALE "), %[v]" : [v] "=x"(x)     \
            : [p] "r"(from), [i] "r"(at), [n] "i"((next) * sizeof(T)))
#define LEAF_ONE LEAF_TYPED("vbroadcast", "s") " "
#define LEAF_FMA(v, c) "\n\t" LEAF_TYPED("vfmadd231", "p") " %[" v "], %[all], %[" c "]"
#define LEAF_FMAS(nv, c, x, one, ...)                                                             \
    do {                                                                                          \
        VEC all_;                                                                                 \
        if ((nv) == 1)                                                                            \
            __asm__ volatile(LEAF_ONE one ", %[all]" LEAF_FMA("v0", "c0")                         \
                             : [all] "=&x"(all_), [c0] "+x"((c)[0])                               \
                             : [v0] "x"((x)[0]), __VA_ARGS__);                                    \
        else if ((nv) == 2)                                                                       \
            __asm__ volatile(LEAF_ONE one ", %[all]" LEAF_FMA("v0", "c0") LEAF_FMA("v1", "c1")    \
                             : [all] "=&x"(all_), [c0] "+x"((c)[0]), [c1] "+x"((c)[1])            \
                             : [v0] "x"((x)[0]), [v1] "x"((x)[1]), __VA_ARGS__);                  \
        else                                                                                      \
            __asm__ volatile(LEAF_ONE one ", %[all]" LEAF_FMA("v0", "c0") LEAF_FMA("v1", "c1")    \
                                 LEAF_FMA("v2", "c2")                                             \
                             : [all] "=&x"(all_), [c0] "+x"((c)[0]), [c1] "+x"((c)[1]),           \
                               [c2] "+x"((c)[2])                                                  \
                             : [v0] "x"((x)[0]), [v1] "x"((x)[1]), [v2] "x"((x)[2]),              \
                               __VA_ARGS__);                                                      \
    } while (0)
#define VFMAS(nv, c, x, t) LEAF_FMAS(nv, c, x, "%[one]", [one] "m"(t))
#define VFMAS_AT(nv, c, x, from, at, next)                                                        \
    LEAF_FMAS(nv, c, x, "%c[n](%[p], %[i], " LEAF_SCALE ")", [p] "r"(from), [i] "r"(at),          \
              [n] "i"((next) * sizeof(T)))
#endif

#if defined(__clang__) || __GNUC__ >= 12
#define VSHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#define QSHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#elif defined(LEAF_DOUBLE)
#define VSHUFFLE(a, b, ...)                                                                      \
    __builtin_shuffle(a, b, (long long __attribute__((vector_size(8 * VL)))){__VA_ARGS__})
#define QSHUFFLE(a, b, ...)                                                                      \
    __builtin_shuffle(a, b, (long long __attribute__((vector_size(32)))){__VA_ARGS__})
#else
#define VSHUFFLE(a, b, ...)                                                                      \
    __builtin_shuffle(a, b, (int __attribute__((vector_size(4 * VL)))){__VA_ARGS__})
#define QSHUFFLE(a, b, ...)                                                                      \
    __builtin_shuffle(a, b, (int __attribute__((vector_size(16)))){__VA_ARGS__})
#endif

#if VL == 2
#define VEVEN(a, b) VSHUFFLE(a, b, 0, 2)
#define VODD(a, b) VSHUFFLE(a, b, 1, 3)
#define VNEXT(x) VSHUFFLE(x, x, 1, 0)
#define VLOW(a, b) VSHUFFLE(a, b, 0, 2)
#define VHIGH(a, b) VSHUFFLE(a, b, 1, 3)
#elif VL == 4
#define VEVEN(a, b) VSHUFFLE(a, b, 0, 2, 4, 6)
#define VODD(a, b) VSHUFFLE(a, b, 1, 3, 5, 7)
#define VNEXT(x) VSHUFFLE(x, x, 1, 2, 3, 0)
#define VLOW(a, b) VSHUFFLE(a, b, 0, 4, 1, 5)
#define VHIGH(a, b) VSHUFFLE(a, b, 2, 6, 3, 7)
#elif VL == 8
#define VEVEN(a, b) VSHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14)
#define VODD(a, b) VSHUFFLE(a, b, 1, 3, 5, 7, 9, 11, 13, 15)
#define VNEXT(x) VSHUFFLE(x, x, 1, 2, 3, 4, 5, 6, 7, 0)
#define VLOW(a, b) VSHUFFLE(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define VHIGH(a, b) VSHUFFLE(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#else
#define VEVEN(a, b) VSHUFFLE(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
#define VODD(a, b) VSHUFFLE(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)
#define VNEXT(x) VSHUFFLE(x, x, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0)
#define VLOW(a, b) VSHUFFLE(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define VHIGH(a, b) VSHUFFLE(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#endif

#if defined(__x86_64__)
#define VKEEP(x) __asm__("" : "+v"(x))
#elif defined(__aarch64__)
#define VKEEP(x) __asm__("" : "+w"(x))
#else
#define VKEEP(x) (void)(x)
#endif

/* a lane holds two doubles or four floats */
#if VL == 16
#define VINORDER(x) VSHUFFLE(x, x, 0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15)
#elif VL == 8 && defined(LEAF_DOUBLE)
#define VINORDER(x) VSHUFFLE(x, x, 0, 2, 4, 6, 1, 3, 5, 7)
#elif VL == 8
#define VINORDER(x) VSHUFFLE(x, x, 0, 1, 4, 5, 2, 3, 6, 7)
#elif VL == 4 && defined(LEAF_DOUBLE)
#define VINORDER(x) VSHUFFLE(x, x, 0, 2, 1, 3)
#else
#define VINORDER(x) (x)
#endif
#ifdef LEAF_DOUBLE
#define VLANEEVEN(a, b) VLANELOW(a, b)
#define VLANEODD(a, b) VLANEHIGH(a, b)
#elif VL == 16
#define VLANEEVEN(a, b)                                                                          \
    VSHUFFLE(a, b, 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30)
#define VLANEODD(a, b)                                                                           \
    VSHUFFLE(a, b, 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31)
#elif VL == 8
#define VLANEEVEN(a, b) VSHUFFLE(a, b, 0, 2, 8, 10, 4, 6, 12, 14)
#define VLANEODD(a, b) VSHUFFLE(a, b, 1, 3, 9, 11, 5, 7, 13, 15)
#else
#define VLANEEVEN(a, b) VEVEN(a, b)
#define VLANEODD(a, b) VODD(a, b)
#endif

/* where a vector is one lane */
#ifndef VLANESFROM
#define VLANELOW(a, b) VLOW(a, b)
#define VLANEHIGH(a, b) VHIGH(a, b)
#define VLANESFROM(p, q, r, s) VLOAD(p)
#define VLANESTORE(p, step, x) VSTORE(p, x)
#endif

#define VLANES(p, step) VLANESFROM(p, (p) + (step), (p) + 2 * (step), (p) + 3 * (step))
#define VLANESAT(p, at, n)                                                                       \
    VLANESFROM((p) + (at)[0], (p) + (at)[n], (p) + (at)[2 * (n)], (p) + (at)[3 * (n)])
