// Vectors of 16 floats, rows of bfloat16, and each thread's share, on any processor that GCC compiles for.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include <omp.h>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

using bf16 = uint16_t;

constexpr int LANES = 16;

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef bf16 Halves __attribute__((vector_size(32)));

inline Floats load_floats(const float* from) {
    Floats values;
    std::memcpy(&values, from, sizeof values);
    return values;
}

inline void store_floats(float* to, Floats values) { std::memcpy(to, &values, sizeof values); }

inline Floats load_bf16(const bf16* from) {
    Halves halves;
    std::memcpy(&halves, from, sizeof halves);
    return (Floats)(__builtin_convertvector(halves, Words) << 16);
}

// Rounds to nearest, ties to even; NaN stays NaN.
inline void store_bf16(bf16* to, Floats values) {
#if defined(__AVX512BF16__)
    _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh((__m512)values));
#else
    Words bits = (Words)values;
    Words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    Words quiet_nan = (bits >> 16) | 0x40u;
    Words is_nan = (Words)(values != values);
    Halves halves = __builtin_convertvector((is_nan & quiet_nan) | (~is_nan & rounded), Halves);
    std::memcpy(to, &halves, sizeof halves);
#endif
}

inline bf16 to_bf16(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if (value != value) return (bf16)((bits >> 16) | 0x40u);
    return (bf16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// max(values, 0) that keeps NaN, as torch's ReLU does.
inline Floats relu(Floats values) { return values < 0.0f ? Floats{} : values; }

// Room for `count` values that nobody has written yet.
template <class Value> std::unique_ptr<Value[]> room(int64_t count) { return std::unique_ptr<Value[]>(new Value[count]); }

struct Range {
    int64_t from, to;
};

// The part of 0 .. count that falls to this thread: the same in every loop, so that it finds its own in its cache.
inline Range my_share(int64_t count) {
    int64_t each = (count + omp_get_num_threads() - 1) / omp_get_num_threads();
    int64_t from = std::min(count, each * omp_get_thread_num());
    return {from, std::min(count, from + each)};
}
