// The inner loop of a convolution: a tile of pixels by 16 or 32 channels, kept in registers over all taps.
//
// Rule: nothing here knows a number's type. Four bytes of an input, a "group", are the channels that one instruction
// multiplies and adds up: 2 of bfloat16, 4 of int8. A weight vector holds one group for each of 16 output channels.

#pragma once

#include <immintrin.h>

#include "vectors.h"

// Where a tap reads, in groups from the pixel's own place, and its weights: [groups][16 channels][4 bytes].
struct Tap {
    int64_t offset;
    const uint32_t* weights;
};

// A row of output pixels whose inputs lie `step` groups apart.
struct Row {
    const uint32_t* in;
    int64_t step;
    int num_groups;
    int num_pixels;
    int64_t block; // groups of weights between one block of 16 output channels and the next
};

inline __m512i spread(const uint32_t* group) { return _mm512_set1_epi32((int)*group); }

// `Out` says how a group is multiplied (dot), and where the sums [pixel][block][16] go (store). STEP 0: row.step.
template <int PIXELS, int BLOCKS, int STEP, class Out>
inline void tile(const Row& row, int first, const Tap* taps, int num_taps, int64_t weights_at, const Out& out) {
    const int64_t step = STEP ? STEP : row.step;
    typename Out::Sums sums[PIXELS][BLOCKS];
    for (int pixel = 0; pixel < PIXELS; pixel++)
        for (int block = 0; block < BLOCKS; block++) sums[pixel][block] = Out::zero();
    for (int tap = 0; tap < num_taps; tap++) {
        const uint32_t* in = row.in + first * step + taps[tap].offset;
        const uint32_t* weights = taps[tap].weights + weights_at;
#pragma GCC unroll 2
        for (int group = 0; group < row.num_groups; group++) {
            __m512i weight[BLOCKS];
            for (int block = 0; block < BLOCKS; block++)
                weight[block] = _mm512_loadu_si512(weights + block * row.block + group * LANES);
#pragma GCC unroll 16
            for (int pixel = 0; pixel < PIXELS; pixel++) {
                __m512i x = spread(in + pixel * step + group);
                for (int block = 0; block < BLOCKS; block++)
                    sums[pixel][block] = Out::dot(sums[pixel][block], weight[block], x);
            }
        }
    }
    out.template store<PIXELS, BLOCKS>(first, sums);
}

template <int BLOCKS, int STEP, class Out>
void tiles(const Row& row, const Tap* taps, int num_taps, int64_t weights_at, const Out& out) {
    int first = 0;
    if (BLOCKS == 1)
        for (; first + 16 <= row.num_pixels; first += 16)
            tile<16, BLOCKS, STEP>(row, first, taps, num_taps, weights_at, out);
    for (; first + 8 <= row.num_pixels; first += 8) tile<8, BLOCKS, STEP>(row, first, taps, num_taps, weights_at, out);
    for (; first + 4 <= row.num_pixels; first += 4) tile<4, BLOCKS, STEP>(row, first, taps, num_taps, weights_at, out);
    for (; first < row.num_pixels; first++) tile<1, BLOCKS, STEP>(row, first, taps, num_taps, weights_at, out);
}

// A step that the compiler knows leaves registers for sums: pixels are then addressed from one pointer.
template <int BLOCKS, class Out>
void any_step(const Row& row, const Tap* taps, int num_taps, int64_t weights_at, const Out& out) {
    switch (row.step) {
    case 2: return tiles<BLOCKS, 2>(row, taps, num_taps, weights_at, out);
    case 4: return tiles<BLOCKS, 4>(row, taps, num_taps, weights_at, out);
    case 8: return tiles<BLOCKS, 8>(row, taps, num_taps, weights_at, out);
    case 16: return tiles<BLOCKS, 16>(row, taps, num_taps, weights_at, out);
    case 32: return tiles<BLOCKS, 32>(row, taps, num_taps, weights_at, out);
    case 64: return tiles<BLOCKS, 64>(row, taps, num_taps, weights_at, out);
    default: return tiles<BLOCKS, 0>(row, taps, num_taps, weights_at, out);
    }
}

// All `channels` (a multiple of 16) of a row's pixels; out_of(first channel) makes the `Out` of a block or two.
template <class OutOf> void convolve_row(const Row& row, const std::vector<Tap>& taps, int channels, OutOf out_of) {
    int channel = 0, num_taps = (int)taps.size();
    for (; channel + 2 * LANES <= channels; channel += 2 * LANES)
        any_step<2>(row, taps.data(), num_taps, channel / LANES * row.block, out_of(channel));
    if (channel < channels) any_step<1>(row, taps.data(), num_taps, channel / LANES * row.block, out_of(channel));
}

// Sizes of a convolution over squares of odd side, zeros around, one group of channels.
struct Geometry {
    int num_images, height, width, channels_in, channels_out, side, stride;
    int pad() const { return side / 2; }
    int taps() const { return side * side; }
    int out_height() const { return (height + 2 * pad() - side) / stride + 1; }
    int out_width() const { return (width + 2 * pad() - side) / stride + 1; }
};

// Writes rows [first, first + num_rows) of an image of `height` rows to `to`: a row of `inner` groups between two margins
// that are zero from the start and stay so; copy(row, to) gives the inside of one.
template <class Copy>
void copy_padded(int height, int64_t inner, int64_t margin, int first, int num_rows, uint32_t* to, Copy copy) {
    for (int row = first; row < first + num_rows; row++, to += 2 * margin + inner)
        if (row < 0 || row >= height) std::memset(to + margin, 0, inner * 4);
        else copy(row, to + margin);
}

// Output rows that are computed from one copy of their inputs, so that the copy stays in the cache.
constexpr int64_t BAND_BYTES = 192 << 10;

inline int rows_of_band(int64_t bytes_a_row, int num_rows) {
    return (int)std::max<int64_t>(1, std::min<int64_t>(num_rows, BAND_BYTES / std::max<int64_t>(1, bytes_a_row)));
}
