/* The vector vocabulary of the leaf kernels, for one instruction set and one compute type.
 *
 * Included once per (instruction set, type) with LEAF_ISA_* and LEAF_DOUBLE set.  Defines
 *   T, VEC, VL          element, vector, elements per vector
 *   MR, NV              micro-tile: rows, vectors per row
 *   VLOAD VSTORE VSET1 VZERO VADD VFMA(a, b, c) = a * b + c, and SFMA, its scalar twin
 * A fused VFMA goes with a fused SFMA, so a tail element has the bits of a vector lane.
 */
#undef T
#undef VEC
#undef VL
#undef MR
#undef NV
#undef VLOAD
#undef VSTORE
#undef VSET1
#undef VZERO
#undef VADD
#undef VFMA
#undef SFMA

#ifdef LEAF_DOUBLE
#define T double
#else
#define T float
#endif

#if defined(LEAF_ISA_AVX512)

#define MR 14
#define NV 2
#ifdef LEAF_DOUBLE
#define VEC __m512d
#define VL 8
#define VLOAD(p) _mm512_loadu_pd(p)
#define VSTORE(p, v) _mm512_storeu_pd(p, v)
#define VSET1(x) _mm512_set1_pd(x)
#define VZERO() _mm512_setzero_pd()
#define VADD(a, b) _mm512_add_pd(a, b)
#define VFMA(a, b, c) _mm512_fmadd_pd(a, b, c)
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
#define SFMA(a, b, c) __builtin_fmaf(a, b, c)
#endif

#elif defined(LEAF_ISA_AVX2)

#define MR 6
#define NV 2
#ifdef LEAF_DOUBLE
#define VEC __m256d
#define VL 4
#define VLOAD(p) _mm256_loadu_pd(p)
#define VSTORE(p, v) _mm256_storeu_pd(p, v)
#define VSET1(x) _mm256_set1_pd(x)
#define VZERO() _mm256_setzero_pd()
#define VADD(a, b) _mm256_add_pd(a, b)
#define VFMA(a, b, c) _mm256_fmadd_pd(a, b, c)
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
#define SFMA(a, b, c) __builtin_fmaf(a, b, c)
#endif

#elif defined(LEAF_ISA_NEON)

#define MR 6
#define NV 4
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
