// BatchNorm by the statistics of a batch (Ioffe and Szegedy 2015, arXiv 1502.03167), with a sum and a ReLU behind it.
//
// Tensors are bfloat16[P, C], P pixels of C channels (a multiple of 16): torch's channels_last. Parameters and
// statistics are float32[C]. Sums run in float32 over BLOCK pixels, then in double, each thread for itself.

#pragma once

#include <cmath>

#include "vectors.h"

constexpr int64_t BLOCK = 1024;
constexpr int64_t FEW_PIXELS = 32; // that stay in the first cache with all their channels

// A layer's parameters; running statistics move by `momentum`, the variance unbiased, and batches are counted.
struct NormLayer {
    const float *gamma, *beta;
    float *running_mean, *running_var;
    int64_t* num_batches;
    float *mean, *inverse_std; // of the batch
    float momentum, eps;
    int with_relu;
};

// What its backward pass gives of the parameters.
struct NormGradients {
    float *gamma, *beta;
};

// Two sums a channel, of each thread.
class Sums {
  public:
    explicit Sums(int num_channels) : channels(num_channels), values(2 * (size_t)num_channels * omp_get_max_threads()) {}
    double* mine() { return values.data() + 2 * (size_t)channels * omp_get_thread_num(); }
    double of(int which, int channel) const {
        double sum = 0;
        for (size_t place = (size_t)which * channels + channel; place < values.size(); place += 2 * (size_t)channels)
            sum += values[place];
        return sum;
    }

  private:
    int channels;
    std::vector<double> values;
};

// Adds two terms of each pixel to `sums`: terms(place, channel, a, b) adds those of 16 channels to a and b. From the
// last pixel to the first: what was written last is still in the cache.
template <int BLOCKS, class Terms> void add_up(Range pixels, int channels, double* sums, const Terms& terms) {
    for (int first = 0; first < channels; first += LANES * BLOCKS)
        for (int64_t end = pixels.to; end > pixels.from; end -= BLOCK) {
            Floats a[BLOCKS] = {}, b[BLOCKS] = {};
            for (int64_t pixel = std::max(pixels.from, end - BLOCK); pixel < end; pixel++)
                for (int block = 0; block < BLOCKS; block++) {
                    int channel = first + LANES * block;
                    terms(pixel * channels + channel, channel, a[block], b[block]);
                }
            for (int block = 0; block < BLOCKS; block++)
                for (int lane = 0; lane < LANES; lane++) {
                    sums[first + LANES * block + lane] += a[block][lane];
                    sums[channels + first + LANES * block + lane] += b[block][lane];
                }
        }
}

template <class Terms> void add_up(Range pixels, int channels, double* sums, const Terms& terms) {
    if (channels % (4 * LANES) == 0) return add_up<4>(pixels, channels, sums, terms);
    if (channels % (2 * LANES) == 0) return add_up<2>(pixels, channels, sums, terms);
    add_up<1>(pixels, channels, sums, terms);
}

// Sums of x and of x^2, both around one value a channel: a mean far from zero then costs no digits of the variance.
struct Moments {
    void operator()(int64_t place, int channel, Floats& sum, Floats& squares) const {
        Floats value = load_bf16(x + place) - load_floats(pivot + channel);
        sum += value;
        squares += value * value;
    }
    const bf16* x;
    const float* pivot;
};

// x * scale + shift: a layer's normalization by the statistics that it keeps of the batch.
struct Affine {
    Affine(const NormLayer& layer, int channels) : scale(channels), shift(channels) {
        for (int channel = 0; channel < channels; channel++) {
            scale[channel] = layer.gamma[channel] * layer.inverse_std[channel];
            shift[channel] = layer.beta[channel] - layer.mean[channel] * scale[channel];
        }
    }
    // For 16 channels; loops over pixels keep it in registers.
    struct Lane {
        Floats operator()(Floats x) const { return x * scale + shift; }
        Floats scale, shift;
    };
    Lane lane(int channel) const { return {load_floats(&scale[channel]), load_floats(&shift[channel])}; }
    std::vector<float> scale, shift;
};

// Keeps mean and 1 / sqrt(var + eps) of the batch, and moves the running statistics.
inline void keep_statistics(
    const NormLayer& layer, const Sums& sums, const float* pivot, int64_t num_pixels, int channels
) {
    ++*layer.num_batches;
    for (int channel = 0; channel < channels; channel++) {
        double off = sums.of(0, channel) / num_pixels;
        double var = std::max(0.0, sums.of(1, channel) / num_pixels - off * off);
        if (!std::isfinite(off)) var = NAN; // max() has just hidden that
        double mean = pivot[channel] + off, unbiased = var * num_pixels / (num_pixels - 1);
        layer.mean[channel] = (float)mean;
        layer.inverse_std[channel] = (float)(1 / std::sqrt(var + layer.eps));
        layer.running_mean[channel] += layer.momentum * (float)(mean - layer.running_mean[channel]);
        layer.running_var[channel] += layer.momentum * (float)(unbiased - layer.running_var[channel]);
    }
}

// y = relu(normalized x + other), without `other` where it is null.
inline void normalize(
    const NormLayer& layer, const bf16* x, const bf16* other, bf16* y, int64_t num_pixels, int channels
) {
    const Affine affine(layer, channels);
#pragma omp parallel
    {
        Range pixels = my_share(num_pixels);
        for (int64_t start = pixels.from; start < pixels.to; start += FEW_PIXELS)
            for (int channel = 0; channel < channels; channel += LANES) {
                const Affine::Lane lane = affine.lane(channel);
                for (int64_t pixel = start; pixel < std::min(pixels.to, start + FEW_PIXELS); pixel++) {
                    int64_t place = pixel * channels + channel;
                    Floats value = lane(load_bf16(x + place));
                    if (other) value += load_bf16(other + place);
                    store_bf16(y + place, layer.with_relu ? relu(value) : value);
                }
            }
    }
}

// The gradient behind the ReLU, three ways: there is none; y shows where it let values through; x shows the same.
struct Everywhere {
    Floats operator()(int64_t place) const { return load_bf16(dy + place); }
    Everywhere lane(int) const { return *this; }
    const bf16* dy;
};

struct WhereY {
    Floats operator()(int64_t place) const { return load_bf16(y + place) > 0.0f ? load_bf16(dy + place) : Floats{}; }
    WhereY lane(int) const { return *this; }
    const bf16 *dy, *y;
};

struct WhereX {
    struct Lane {
        Floats operator()(int64_t place) const {
            return affine(load_bf16(x + place)) > 0.0f ? load_bf16(dy + place) : Floats{};
        }
        const bf16 *dy, *x;
        Affine::Lane affine;
    };
    Lane lane(int channel) const { return {dy, x, affine.lane(channel)}; }
    const bf16 *dy, *x;
    const Affine& affine;
};

// Calls with(gradient) for the way that fits: y is null where nothing was added before the ReLU.
template <class With>
void with_gradient(const NormLayer& layer, const bf16* dy, const bf16* y, const bf16* x, int channels, With with) {
    if (!layer.with_relu) with(Everywhere{dy});
    else if (y) with(WhereY{dy, y});
    else {
        Affine affine(layer, channels);
        with(WhereX{dy, x, affine});
    }
}

// dx = gamma / std * (g - sum(g) / P - (x - mean) / var * sum(g (x - mean)) / P), with the sums of a backward pass.
class NormBackward {
  public:
    template <class Gradient>
    NormBackward(
        const NormLayer& layer, const Gradient& gradient, const bf16* x, int64_t num_pixels, int channels,
        NormGradients gradients
    )
        : of_g(channels), of_x(channels), constant(channels), mean(layer.mean) {
        Sums sums(channels);
#pragma omp parallel
        add_up(
            my_share(num_pixels), channels, sums.mine(),
            [&](int64_t place, int channel, Floats& sum, Floats& products) {
                Floats g = gradient.lane(channel)(place);
                sum += g;
                products += g * (load_bf16(x + place) - load_floats(mean + channel));
            }
        );
        for (int channel = 0; channel < channels; channel++) {
            double sum = sums.of(0, channel), products = sums.of(1, channel), inverse = layer.inverse_std[channel];
            double factor = layer.gamma[channel] * inverse;
            gradients.beta[channel] = (float)sum;
            gradients.gamma[channel] = (float)(products * inverse);
            of_g[channel] = (float)factor;
            of_x[channel] = (float)(-factor * inverse * inverse * products / num_pixels);
            constant[channel] = (float)(-factor * sum / num_pixels - of_x[channel] * (double)mean[channel]);
        }
    }
    struct Lane {
        Floats operator()(Floats g, Floats x) const { return g * of_g + (x * of_x + constant); }
        Floats of_g, of_x, constant;
    };
    Lane lane(int channel) const {
        return {load_floats(&of_g[channel]), load_floats(&of_x[channel]), load_floats(&constant[channel])};
    }

  private:
    std::vector<float> of_g, of_x, constant;
    const float* mean;
};

// dx[0], dx[1], ... of pixels from, from + 1, ...; d_other, where it is not null, is the whole tensor's.
template <class Gradient>
void write_gradient(
    const NormBackward& backward, const Gradient& gradient, const bf16* x, Range pixels, int channels, bf16* dx,
    bf16* d_other
) {
    for (int64_t start = pixels.from; start < pixels.to; start += FEW_PIXELS)
        for (int channel = 0; channel < channels; channel += LANES) {
            const auto g_of = gradient.lane(channel);
            const NormBackward::Lane lane = backward.lane(channel);
            for (int64_t pixel = start; pixel < std::min(pixels.to, start + FEW_PIXELS); pixel++) {
                int64_t place = pixel * channels + channel;
                Floats g = g_of(place);
                if (d_other) store_bf16(d_other + place, g);
                store_bf16(dx + place - pixels.from * channels, lane(g, load_bf16(x + place)));
            }
        }
}
