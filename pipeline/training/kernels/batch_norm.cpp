// BatchNorm, a sum and a ReLU: two passes over memory forward, two backward.

#include "norm.h"

extern "C" {

// y = relu(BatchNorm(x) + other), without `other` where it is null.
void batch_norm_forward(
    const bf16* x, const bf16* other, bf16* y, int64_t num_pixels, int channels, const NormLayer* layer
) {
    Sums sums(channels);
    std::vector<float> pivot(channels);
    for (int channel = 0; channel < channels; channel += LANES) store_floats(&pivot[channel], load_bf16(x + channel));
#pragma omp parallel
    add_up(my_share(num_pixels), channels, sums.mine(), Moments{x, pivot.data()});
    keep_statistics(*layer, sums, pivot.data(), num_pixels, channels);
    normalize(*layer, x, other, y, num_pixels, channels);
}

// Gradients of batch_norm_forward: of x, of `other` (where `d_other` is not null), of gamma and beta, from that of y.
void batch_norm_backward(
    const bf16* dy, const bf16* y, const bf16* x, bf16* dx, bf16* d_other, int64_t num_pixels, int channels,
    const NormLayer* layer, const NormGradients* gradients
) {
    with_gradient(*layer, dy, y, x, channels, [&](const auto& gradient) {
        const NormBackward backward(*layer, gradient, x, num_pixels, channels, *gradients);
#pragma omp parallel
        {
            Range pixels = my_share(num_pixels);
            write_gradient(backward, gradient, x, pixels, channels, dx + pixels.from * channels, d_other);
        }
    });
}
}
