// relu(convolution(x) + other) of int8 for inference, by the dot products of AVX-512 VNNI, which sum in int32.
//
// x is uint8[N, H, W, C] with a zero point of 0 (what a ReLU gave), `other` and y that or bfloat16; channels are in 16s.
// Weights are int8[K / 16, taps, C / 4, 16, 4]. A sum becomes sum * scale[k] + bias[k] in float32; a uint8 output is
// that, rounded half to even and cut to 0..255, so its scale is in `scale`, `bias` and `other_scale` already.

#include "tiles.h"

namespace {

enum Kind { NONE, UINT8, BFLOAT16 };

struct Int8Out {
    using Sums = __m512i;
    static Sums zero() { return _mm512_setzero_si512(); }
    static Sums dot(Sums sums, __m512i weights, __m512i x) { return _mm512_dpbusd_epi32(sums, x, weights); }
    template <int PIXELS, int BLOCKS> void store(int first, const Sums (&sums)[PIXELS][BLOCKS]) const {
        switch (other_kind) {
        case NONE: return store_with<NONE>(first, sums);
        case UINT8: return store_with<UINT8>(first, sums);
        case BFLOAT16: return store_with<BFLOAT16>(first, sums);
        }
    }
    template <Kind OTHER, int PIXELS, int BLOCKS> void store_with(int first, const Sums (&sums)[PIXELS][BLOCKS]) const {
        if (kind == UINT8) store_as<UINT8, OTHER>(first, sums);
        else store_as<BFLOAT16, OTHER>(first, sums);
    }
    template <Kind KIND, Kind OTHER, int PIXELS, int BLOCKS>
    void store_as(int first, const Sums (&sums)[PIXELS][BLOCKS]) const {
        const __m512 of_other = _mm512_set1_ps(other_scale);
        const int64_t wide = step, start = (at + first) * step;
        const void* added = other;
        void* out = y;
        for (int block = 0; block < BLOCKS; block++) {
            const __m512 scales = _mm512_loadu_ps(scale + block * LANES), biases = _mm512_loadu_ps(bias + block * LANES);
            for (int pixel = 0; pixel < PIXELS; pixel++) {
                int64_t place = start + pixel * wide + block * LANES;
                __m512 value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[pixel][block]), scales, biases);
                if (OTHER == UINT8) {
                    __m128i codes = _mm_loadu_si128((const __m128i*)((const uint8_t*)added + place));
                    value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes)), of_other, value);
                } else if (OTHER == BFLOAT16)
                    value = _mm512_fmadd_ps((__m512)load_bf16((const bf16*)added + place), of_other, value);
                value = _mm512_max_ps(value, _mm512_setzero_ps());
                if (KIND == BFLOAT16) store_bf16((bf16*)out + place, (Floats)value);
                else _mm_storeu_si128((__m128i*)((uint8_t*)out + place), _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(value)));
            }
        }
    }
    const float *scale, *bias;
    const void* other;
    Kind other_kind;
    float other_scale;
    void* y;
    Kind kind;
    int64_t at, step; // first pixel of the row; values from one pixel to the next
};

} // namespace

extern "C" {

// What a convolution adds and how it answers; kinds as in Kind.
struct Int8Layer {
    const uint8_t* x;
    const uint32_t* weights;
    const float *scale, *bias;
    const void* other;
    int other_kind;
    float other_scale;
    void* y;
    int kind;
};

void int8_convolution(const Int8Layer* given, const Geometry* of) {
    const Geometry sizes = *of;
    const Int8Layer layer = *given;
    int pad = sizes.pad(), side = sizes.side, stride = sizes.stride, groups = sizes.channels_in / 4;
    int out_height = sizes.out_height(), out_width = sizes.out_width();
    int64_t inner = (int64_t)sizes.width * groups, wide = inner + 2 * pad * groups;
    int band = rows_of_band(wide * stride * 4, out_height), num_bands = (out_height + band - 1) / band;
#pragma omp parallel
    {
        std::vector<uint32_t> rows(((band - 1) * stride + side) * wide);
        std::vector<Tap> taps;
        for (int row = 0; row < side; row++) // its taps lie side by side: one long tap
            taps.push_back({row * wide, layer.weights + (size_t)row * side * groups * LANES});
#pragma omp for schedule(static)
        for (int64_t unit = 0; unit < (int64_t)sizes.num_images * num_bands; unit++) {
            int n = (int)(unit / num_bands), first = (int)(unit % num_bands) * band;
            int last = std::min(out_height, first + band);
            copy_padded(
                sizes.height, inner, pad * groups, first * stride - pad, (last - first - 1) * stride + side, rows.data(),
                [&](int row, uint32_t* to) {
                    std::memcpy(to, (const uint32_t*)layer.x + ((int64_t)n * sizes.height + row) * inner, inner * 4);
                }
            );
            for (int row = first; row < last; row++)
                convolve_row(
                    {rows.data() + (row - first) * stride * wide, (int64_t)stride * groups, side * groups, out_width,
                     (int64_t)sizes.taps() * groups * LANES},
                    taps, sizes.channels_out, [&](int k) {
                        size_t bytes = layer.kind == UINT8 ? k : 2 * (size_t)k;
                        size_t other_bytes = layer.other_kind == UINT8 ? k : 2 * (size_t)k;
                        return Int8Out{
                            layer.scale + k, layer.bias + k, layer.other ? (const char*)layer.other + other_bytes : nullptr,
                            (Kind)layer.other_kind, layer.other_scale, (char*)layer.y + bytes, (Kind)layer.kind,
                            ((int64_t)n * out_height + row) * out_width, sizes.channels_out
                        };
                    }
                );
        }
    }
}

// Codes uint8 of `count` values (a multiple of 16): round(x / step), half to even, cut to 0..255.
void quantize_uint8(const bf16* x, uint8_t* codes, int64_t count, float step) {
    __m512 inverse = _mm512_set1_ps(1 / step);
#pragma omp parallel for schedule(static)
    for (int64_t place = 0; place < count; place += LANES) {
        __m512 value = _mm512_max_ps(_mm512_mul_ps((__m512)load_bf16(x + place), inverse), _mm512_setzero_ps());
        _mm_storeu_si128((__m128i*)(codes + place), _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(value)));
    }
}
}
