// Convolution of bfloat16 and its gradients, by the dot products of AVX-512 BF16, which sum in float32.
//
// Images are bfloat16[N, H, W, C], weights and their gradient float32[K, R, R, C]: torch's channels_last. Output
// channels are a multiple of 16; input channels too, but for the first layer of a network, whose 1 to 15 are filled up
// with zeros. Forward and gradient of the input are the same loop: a strided convolution's gradient is, for each of the
// stride^2 places of a pixel in its cell, a convolution with the taps that reach it.

#pragma once

#include "tiles.h"

// Writes bfloat16, after adding `more` where that is not null.
struct Bf16Out {
    using Sums = __m512;
    static Sums zero() { return _mm512_setzero_ps(); }
    static Sums dot(Sums sums, __m512i a, __m512i b) { return _mm512_dpbf16_ps(sums, (__m512bh)a, (__m512bh)b); }
    template <int PIXELS, int BLOCKS> void store(int first, const Sums (&sums)[PIXELS][BLOCKS]) const {
        const bf16* added = more;
        bf16* to = out;
        const int64_t wide = step;
        for (int pixel = 0; pixel < PIXELS; pixel++)
            for (int block = 0; block < BLOCKS; block++) {
                int64_t place = (first + pixel) * wide + block * LANES;
                Floats values = (Floats)sums[pixel][block];
                store_bf16(to + place, added ? values + load_bf16(added + place) : values);
            }
    }
    bf16* out;
    const bf16* more;
    int64_t step;
};

inline uint32_t pair(float low, float high) { return (uint32_t)to_bf16(low) | (uint32_t)to_bf16(high) << 16; }

// low[i] | high[i] << 16 for `count` channels, a multiple of 4.
inline void zip(const bf16* low, const bf16* high, int count, uint32_t* to) {
    int place = 0;
    for (; place + LANES <= count; place += LANES) {
        __m512i lows = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(low + place)));
        __m512i highs = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(high + place)));
        _mm512_storeu_si512(to + place, _mm512_or_si512(lows, _mm512_slli_epi32(highs, 16)));
    }
    for (; place < count; place += 4) {
        __m128i lows = _mm_loadl_epi64((const __m128i*)(low + place));
        __m128i highs = _mm_loadl_epi64((const __m128i*)(high + place));
        _mm_storeu_si128((__m128i*)(to + place), _mm_unpacklo_epi16(lows, highs));
    }
}

// The channels of an input as they are computed with: a first layer's few are filled up with zeros.
inline int filled(int channels) { return channels % LANES == 0 ? channels : (channels + 3) / 4 * 4; }

inline void fill_row(const bf16* row, int width, int channels, bf16* to) {
    if (channels == filled(channels)) {
        std::memcpy(to, row, (size_t)width * channels * sizeof(bf16));
        return;
    }
    for (int column = 0; column < width; column++, row += channels, to += filled(channels)) {
        for (int c = 0; c < channels; c++) to[c] = row[c];
        for (int c = channels; c < filled(channels); c++) to[c] = 0;
    }
}

// weights[block of 16 k][tap][c / 2][k][2]: to be multiplied with pairs of input channels.
inline std::unique_ptr<uint32_t[]> pack_for_outputs(const float* w, const Geometry& sizes) {
    int groups = filled(sizes.channels_in) / 2, taps = sizes.taps(), channels = sizes.channels_in;
    auto packed = room<uint32_t>((int64_t)taps * groups * sizes.channels_out);
#pragma omp parallel for schedule(static)
    for (int k = 0; k < sizes.channels_out; k++)
        for (int tap = 0; tap < taps; tap++) {
            const float* from = w + ((int64_t)k * taps + tap) * channels;
            uint32_t* to = &packed[((int64_t)k / LANES * taps + tap) * groups * LANES + k % LANES];
            for (int c = 0; c < 2 * groups; c += 2)
                to[c / 2 * LANES] = pair(c < channels ? from[c] : 0, c + 1 < channels ? from[c + 1] : 0);
        }
    return packed;
}

// weights[block of 16 c][tap][k / 2][c][2]: to be multiplied with pairs of the output's gradients.
inline std::unique_ptr<uint32_t[]> pack_for_inputs(const float* w, const Geometry& sizes) {
    int pairs = sizes.channels_out / 2, taps = sizes.taps(), channels = sizes.channels_in;
    auto packed = room<uint32_t>((int64_t)taps * pairs * channels);
#pragma omp parallel for schedule(static)
    for (int k = 0; k < sizes.channels_out; k += 2)
        for (int tap = 0; tap < taps; tap++) {
            const float *low = w + ((int64_t)k * taps + tap) * channels, *high = low + (int64_t)taps * channels;
            for (int c = 0; c < channels; c++)
                packed[(((int64_t)c / LANES * taps + tap) * pairs + k / 2) * LANES + c % LANES] = pair(low[c], high[c]);
        }
    return packed;
}

// y = convolution of x; calls on_pixels(range) in the thread that has just computed these pixels of y.
template <class OnPixels>
void convolve(const bf16* x, const float* w, bf16* y, const Geometry& sizes, OnPixels on_pixels) {
    int pad = sizes.pad(), side = sizes.side, stride = sizes.stride, groups = filled(sizes.channels_in) / 2;
    int out_height = sizes.out_height(), out_width = sizes.out_width();
    int64_t inner = (int64_t)sizes.width * groups, wide = inner + 2 * pad * groups;
    int band = rows_of_band(wide * stride * 4, out_height), num_bands = (out_height + band - 1) / band;
    const auto packed = pack_for_outputs(w, sizes);
#pragma omp parallel
    {
        std::vector<uint32_t> rows(((band - 1) * stride + side) * wide);
        std::vector<Tap> taps;
        for (int row = 0; row < side; row++) // its taps lie side by side: one long tap
            taps.push_back({row * wide, &packed[(size_t)row * side * groups * LANES]});
#pragma omp for schedule(static)
        for (int64_t unit = 0; unit < (int64_t)sizes.num_images * num_bands; unit++) {
            int64_t n = unit / num_bands;
            int first = (int)(unit % num_bands) * band, last = std::min(out_height, first + band);
            auto copy = [&](int row, uint32_t* to) {
                const bf16* from = x + (n * sizes.height + row) * sizes.width * sizes.channels_in;
                fill_row(from, sizes.width, sizes.channels_in, (bf16*)to);
            };
            copy_padded(
                sizes.height, inner, pad * groups, first * stride - pad, (last - first - 1) * stride + side, rows.data(),
                copy
            );
            for (int row = first; row < last; row++) {
                bf16* out = y + (n * out_height + row) * out_width * sizes.channels_out;
                convolve_row(
                    {rows.data() + (row - first) * stride * wide, (int64_t)stride * groups, side * groups, out_width,
                     (int64_t)sizes.taps() * groups * LANES},
                    taps, sizes.channels_out, [&](int k) { return Bf16Out{out + k, nullptr, sizes.channels_out}; }
                );
            }
            on_pixels(Range{(n * out_height + first) * out_width, (n * out_height + last) * out_width});
        }
    }
}

// What a group of images says of the weights: [row of taps][tap][c][k], summed over pairs of pixels.
struct WeightTile {
    const uint32_t *x, *d;
    int num_images, num_rows, num_pairs, channels_out;
    int64_t x_image, x_row, x_pair, x_tap; // words from one image, row, pair of pixels, tap to the next
    int64_t d_image, d_row, d_pair;
    int64_t sums_tap;
};

template <int TAPS, int CHANNELS> void sum_products(const WeightTile& at, float* sums) {
    Bf16Out::Sums kept[TAPS][CHANNELS];
    for (int tap = 0; tap < TAPS; tap++)
        for (int c = 0; c < CHANNELS; c++)
            kept[tap][c] = _mm512_loadu_ps(sums + tap * at.sums_tap + (int64_t)c * at.channels_out);
    for (int image = 0; image < at.num_images; image++)
        for (int row = 0; row < at.num_rows; row++) {
            const uint32_t* x = at.x + image * at.x_image + row * at.x_row;
            const uint32_t* d = at.d + image * at.d_image + row * at.d_row;
            for (int place = 0; place < at.num_pairs; place++, x += at.x_pair, d += at.d_pair) {
                __m512i gradients = _mm512_loadu_si512(d);
#pragma GCC unroll 4
                for (int tap = 0; tap < TAPS; tap++)
#pragma GCC unroll 16
                    for (int c = 0; c < CHANNELS; c++)
                        kept[tap][c] = Bf16Out::dot(kept[tap][c], gradients, spread(x + tap * at.x_tap + c));
            }
        }
    for (int tap = 0; tap < TAPS; tap++)
        for (int c = 0; c < CHANNELS; c++)
            _mm512_storeu_ps(sums + tap * at.sums_tap + (int64_t)c * at.channels_out, kept[tap][c]);
}

template <int TAPS> void sum_products(WeightTile at, int channels_in, float* sums) {
    constexpr int WIDE = TAPS == 1 ? 16 : 8;
    int c = 0;
    for (; c + WIDE <= channels_in; c += WIDE, at.x += WIDE) sum_products<TAPS, WIDE>(at, sums + c * at.channels_out);
    for (; c < channels_in; c += 4, at.x += 4) sum_products<TAPS, 4>(at, sums + c * at.channels_out);
}
