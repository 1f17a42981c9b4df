// A convolution, alone or with the BatchNorm behind it, and their gradients.
//
// Together they save memory traffic, which is what small networks wait for: the statistics are summed while the
// convolution's output is in the cache, and the gradient of that output is computed row by row where it is needed.

#include "convolution.h"
#include "norm.h"

namespace {

// What a backward pass reads and writes; gradients that nobody wants are null.
struct BackwardArguments {
    const bf16* x;
    const float* w;
    bf16* dx;
    const bf16* dx_more; // added to dx, or null
    float* dw;
};

// Gradients of the input and of the weights in one pass over the images. row_of(n, row, is_mine, to) writes one row of
// the output's gradient; rows at the border of a band come twice, and are `mine` once.
class Backward {
  public:
    Backward(const BackwardArguments& arguments, const Geometry& geometry)
        : given(arguments), sizes(geometry), channels(filled(geometry.channels_in)), num_out(geometry.channels_out),
          out_height(geometry.out_height()), out_width(geometry.out_width()), num_pairs((out_width + 1) / 2),
          columns((2 * num_pairs - 1) * geometry.stride + geometry.side), groups(num_out / 2),
          wide((int64_t)(out_width + 2 * geometry.pad()) * groups), x_row((int64_t)columns * channels),
          d_row((int64_t)num_pairs * num_out), size((int64_t)geometry.taps() * channels * num_out) {
        band = rows_of_band((sizes.stride * x_row + d_row) * 4, out_height);
        x_rows = (band - 1) * sizes.stride + sizes.side;
        together = band < out_height ? 1 : rows_of_band((x_rows * x_row + band * d_row) * 4, sizes.num_images);
        sums.resize((size_t)omp_get_max_threads() * size);
        if (given.dx) packed = pack_for_inputs(given.w, sizes);
    }

    template <class RowOf> void run(const RowOf& row_of) {
#pragma omp parallel
        {
            Range images = my_share(sizes.num_images);
            Space space(*this);
            for (int64_t n = images.from; n < images.to; n += together)
                for (int first = 0; first < out_height; first += band) {
                    int num = (int)std::min<int64_t>(together, images.to - n);
                    Band here = {first, std::min(band, out_height - first)};
                    for (int image = 0; image < num; image++) {
                        copy_gradient(row_of, n + image, here, space);
                        if (given.dx) write_dx(n + image, here, space);
                        if (!given.dw) continue;
                        zip_x(n + image, here, space, &space.xs[image * x_rows * x_row]);
                        zip_gradient(here, space, &space.ds[image * band * d_row]);
                    }
                    if (given.dw) add_weights(num, here.num_rows, space, &sums[(size_t)omp_get_thread_num() * size]);
                }
        }
        if (given.dw) write_dw();
    }

  private:
    struct Band {
        int first, num_rows;
    };

    // Of one thread: the padded rows of a band's gradient, and pairs of pixels of both for a group of images.
    struct Space {
        explicit Space(const Backward& of)
            : rows((of.band + 2 * of.sizes.pad()) * of.wide),
              xs(room<uint32_t>(of.together * of.x_rows * of.x_row)),
              ds(room<uint32_t>(of.together * of.band * of.d_row)),
              x_padded((size_t)(of.columns + of.sizes.stride) * of.channels), zeros(of.num_out), taps(of.taps()) {}
        std::vector<uint32_t> rows;
        std::unique_ptr<uint32_t[]> xs, ds;
        std::vector<bf16> x_padded, zeros; // in these and in `rows`, zeros stay where no pixel is written
        std::vector<std::vector<Tap>> taps;
    };

    // Taps that reach an input pixel, by its place in its cell of stride x stride.
    std::vector<std::vector<Tap>> taps() const {
        int pad = sizes.pad(), side = sizes.side, stride = sizes.stride;
        std::vector<std::vector<Tap>> found(stride * stride);
        for (int place = 0; given.dx && place < stride * stride; place++)
            for (int tap = 0; tap < sizes.taps(); tap++) {
                int down = place / stride + pad - tap / side, right = place % stride + pad - tap % side;
                if (down % stride || right % stride) continue;
                int64_t offset = (down / stride + pad) * wide + (int64_t)(right / stride + pad) * groups;
                found[place].push_back({offset, &packed[(size_t)tap * groups * LANES]});
            }
        return found;
    }

    template <class RowOf> void copy_gradient(const RowOf& row_of, int64_t n, Band here, Space& space) const {
        int pad = sizes.pad();
        copy_padded(
            out_height, (int64_t)out_width * groups, pad * groups, here.first - pad, here.num_rows + 2 * pad,
            space.rows.data(), [&](int row, uint32_t* to) {
                row_of(n, row, row >= here.first && row < here.first + here.num_rows, (bf16*)to);
            }
        );
    }

    void write_dx(int64_t n, Band here, const Space& space) const {
        int stride = sizes.stride, last = std::min(sizes.height, (here.first + here.num_rows) * stride);
        for (int row = here.first * stride; row < last; row++)
            for (int column = 0; column < std::min(stride, sizes.width); column++) {
                int64_t at = ((n * sizes.height + row) * sizes.width + column) * sizes.channels_in;
                convolve_row(
                    {space.rows.data() + (row / stride - here.first) * wide, groups, groups,
                     (sizes.width - column + stride - 1) / stride, (int64_t)sizes.taps() * groups * LANES},
                    space.taps[row % stride * stride + column], sizes.channels_in, [&](int c) {
                        const bf16* more = given.dx_more ? given.dx_more + at + c : nullptr;
                        return Bf16Out{given.dx + at + c, more, (int64_t)stride * sizes.channels_in};
                    }
                );
            }
    }

    // Words of pixels (j, j + stride) of each padded row, for every j at which a pair of outputs may start.
    void zip_x(int64_t n, Band here, Space& space, uint32_t* to) const {
        int num_rows = (here.num_rows - 1) * sizes.stride + sizes.side;
        for (int row = here.first * sizes.stride - sizes.pad(); num_rows > 0; row++, num_rows--, to += x_row) {
            if (row < 0 || row >= sizes.height) {
                std::memset(to, 0, x_row * 4);
                continue;
            }
            const bf16* from = given.x + (n * sizes.height + row) * sizes.width * sizes.channels_in;
            bf16* padded = space.x_padded.data();
            int width = std::min(sizes.width, columns + sizes.stride - sizes.pad());
            fill_row(from, width, sizes.channels_in, padded + sizes.pad() * channels);
            zip(padded, padded + sizes.stride * channels, columns * channels, to);
        }
    }

    void zip_gradient(Band here, const Space& space, uint32_t* to) const {
        for (int row = 0; row < here.num_rows; row++)
            for (int column = 0; column < out_width; column += 2, to += num_out) {
                const uint32_t* at = space.rows.data() + (row + sizes.pad()) * wide + (column + sizes.pad()) * groups;
                const bf16* d = (const bf16*)at;
                zip(d, column + 1 < out_width ? d + num_out : space.zeros.data(), num_out, to);
            }
    }

    void add_weights(int num_images, int num_rows, const Space& space, float* mine) const {
        int side = sizes.side, stride = sizes.stride;
        for (int k = 0; k < num_out; k += LANES)
            for (int row = 0; row < side; row++) {
                WeightTile at = {};
                at.x = &space.xs[row * x_row], at.d = &space.ds[k];
                at.num_images = num_images, at.num_rows = num_rows, at.num_pairs = num_pairs, at.channels_out = num_out;
                at.x_image = x_rows * x_row, at.x_row = stride * x_row, at.x_pair = 2 * (int64_t)stride * channels;
                at.x_tap = channels, at.d_image = band * d_row, at.d_row = d_row, at.d_pair = num_out;
                at.sums_tap = (int64_t)channels * num_out;
                float* here = mine + (int64_t)row * side * channels * num_out + k;
                if (side == 3) sum_products<3>(at, channels, here);
                else sum_products<1>(at, channels, here);
            }
    }

    void write_dw() const {
#pragma omp parallel for schedule(static)
        for (int k = 0; k < num_out; k++)
            for (int tap = 0; tap < sizes.taps(); tap++)
                for (int c = 0; c < sizes.channels_in; c++) {
                    float sum = 0;
                    for (size_t start = 0; start < sums.size(); start += size)
                        sum += sums[start + ((int64_t)tap * channels + c) * num_out + k];
                    given.dw[((int64_t)k * sizes.taps() + tap) * sizes.channels_in + c] = sum;
                }
    }

    const BackwardArguments given;
    const Geometry sizes;
    const int channels, num_out, out_height, out_width, num_pairs, columns, groups;
    const int64_t wide, x_row, d_row, size; // in words
    int band, x_rows, together;
    std::vector<float> sums; // of each thread: [tap][c][k]
    std::unique_ptr<uint32_t[]> packed;
};

} // namespace

extern "C" {

void convolution_forward(const bf16* x, const float* w, bf16* y, const Geometry* sizes) {
    convolve(x, w, y, *sizes, [](Range) {});
}

void convolution_backward(const bf16* dy, const BackwardArguments* given, const Geometry* sizes) {
    int64_t row_size = (int64_t)sizes->out_width() * sizes->channels_out, height = sizes->out_height();
    Backward(*given, *sizes).run([&](int64_t n, int row, bool, bf16* to) {
        std::memcpy(to, dy + (n * height + row) * row_size, row_size * sizeof(bf16));
    });
}

// z = convolution of x; y = relu(BatchNorm(z) + other), without `other` where it is null.
void convolution_norm_forward(
    const bf16* x, const float* w, const bf16* other, bf16* z, bf16* y, const Geometry* sizes, const NormLayer* layer
) {
    int channels = sizes->channels_out;
    int64_t num_pixels = (int64_t)sizes->num_images * sizes->out_height() * sizes->out_width();
    Sums sums(channels);
    std::vector<float> pivot(layer->running_mean, layer->running_mean + channels);
    for (float& value : pivot)
        if (!std::isfinite(value)) value = 0; // of an earlier batch, and no matter of this one
    convolve(x, w, z, *sizes, [&](Range pixels) {
        add_up(pixels, channels, sums.mine(), Moments{z, pivot.data()});
    });
    keep_statistics(*layer, sums, pivot.data(), num_pixels, channels);
    normalize(*layer, z, other, y, num_pixels, channels);
}

// Gradients of convolution_norm_forward from that of y, which may be null as in batch_norm_backward.
void convolution_norm_backward(
    const bf16* dy, const bf16* y, const bf16* z, bf16* d_other, const BackwardArguments* given, const Geometry* sizes,
    const NormLayer* layer, const NormGradients* gradients
) {
    int channels = sizes->channels_out, height = sizes->out_height();
    int64_t row_size = (int64_t)sizes->out_width() * channels, num_pixels = row_size / channels * height * sizes->num_images;
    with_gradient(*layer, dy, y, z, channels, [&](const auto& gradient) {
        const NormBackward backward(*layer, gradient, z, num_pixels, channels, *gradients);
        Backward(*given, *sizes).run([&](int64_t n, int row, bool is_mine, bf16* to) {
            int64_t first = (n * height + row) * (row_size / channels);
            Range pixels = {first, first + row_size / channels};
            write_gradient(backward, gradient, z, pixels, channels, to, is_mine ? d_other : nullptr);
        });
    });
}
}
