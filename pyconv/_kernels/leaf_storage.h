/* One element of a user array to and from a number, for every storage in leaf.h.
 * memcpy keeps unaligned addresses legal; it compiles to a plain move. */
#include <string.h>

static inline uint16_t leaf_bits16(const char *p, int swapped) {
    uint16_t v;
    memcpy(&v, p, 2);
    return swapped ? __builtin_bswap16(v) : v;
}
static inline uint32_t leaf_bits32(const char *p, int swapped) {
    uint32_t v;
    memcpy(&v, p, 4);
    return swapped ? __builtin_bswap32(v) : v;
}
static inline uint64_t leaf_bits64(const char *p, int swapped) {
    uint64_t v;
    memcpy(&v, p, 8);
    return swapped ? __builtin_bswap64(v) : v;
}

static inline float leaf_from_bits32(uint32_t v) {
    float f;
    memcpy(&f, &v, 4);
    return f;
}
static inline uint32_t leaf_to_bits32(float f) {
    uint32_t v;
    memcpy(&v, &f, 4);
    return v;
}

/* IEEE binary16, by integer arithmetic: exact one way, to nearest even the other. */
static inline float leaf_from_half(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = (h >> 10) & 0x1fu;
    uint32_t mantissa = h & 0x3ffu;
    if (exponent == 31) return leaf_from_bits32(sign | 0x7f800000u | (mantissa << 13));
    if (exponent != 0) return leaf_from_bits32(sign | ((exponent + 112) << 23) | (mantissa << 13));
    float tiny = (float)mantissa * 0x1p-24f; /* subnormal: exact in float */
    return sign ? -tiny : tiny;
}
static inline uint16_t leaf_to_half(float f) {
    uint32_t bits = leaf_to_bits32(f);
    uint32_t sign = (bits >> 16) & 0x8000u;
    uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* rounds past 65504 */
    if (magnitude < 0x38800000u) {                                   /* subnormal or zero */
        /* adding 0.5 leaves the rounded multiple of 2^-24 in the low mantissa bits */
        float shifted = leaf_from_bits32(magnitude) + 0.5f;
        return (uint16_t)(sign | (leaf_to_bits32(shifted) - 0x3f000000u));
    }
    uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return (uint16_t)(sign | ((rounded - 0x38000000u) >> 13));
}

static inline uint16_t leaf_to_bfloat(float f) {
    uint32_t bits = leaf_to_bits32(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline float leaf_get_f32(const char *p, int swapped) {
    return leaf_from_bits32(leaf_bits32(p, swapped));
}
static inline double leaf_get_f64(const char *p, int swapped) {
    uint64_t v = leaf_bits64(p, swapped);
    double d;
    memcpy(&d, &v, 8);
    return d;
}
static inline float leaf_get_f16(const char *p, int swapped) {
    return leaf_from_half(leaf_bits16(p, swapped));
}
static inline float leaf_get_bf16(const char *p, int swapped) {
    return leaf_from_bits32((uint32_t)leaf_bits16(p, swapped) << 16);
}

static inline void leaf_put16(char *p, uint16_t v, int swapped) {
    if (swapped) v = __builtin_bswap16(v);
    memcpy(p, &v, 2);
}
static inline void leaf_put_f32(char *p, float f, int swapped) {
    uint32_t v = leaf_to_bits32(f);
    if (swapped) v = __builtin_bswap32(v);
    memcpy(p, &v, 4);
}
static inline void leaf_put_f64(char *p, double f, int swapped) {
    uint64_t v;
    memcpy(&v, &f, 8);
    if (swapped) v = __builtin_bswap64(v);
    memcpy(p, &v, 8);
}
static inline void leaf_put_f16(char *p, float f, int swapped) {
    leaf_put16(p, leaf_to_half(f), swapped);
}
static inline void leaf_put_bf16(char *p, float f, int swapped) {
    leaf_put16(p, leaf_to_bfloat(f), swapped);
}
