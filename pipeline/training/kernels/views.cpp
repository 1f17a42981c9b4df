// Batches of views of small images: a crop of a padded image, mirrored or not, each byte replaced by its float.

#include "vectors.h"

extern "C" {

struct Views {
    const uint8_t* images; // [N, padded_height, padded_width, channels]
    int64_t padded_height, padded_width, channels, height, width;
    const float* table; // [256, channels]: what a byte of a channel stands for
};

// out[b] = rows[b] .. + height, columns[b] .. + width of image index[b], mirrored where mirrored[b] is not 0.
void show_views(
    const Views* from, const int64_t* index, const int64_t* rows, const int64_t* columns, const uint8_t* mirrored,
    int64_t num, float* out
) {
    const Views views = *from;
    const int64_t channels = views.channels;
#pragma omp parallel for schedule(static)
    for (int64_t place = 0; place < num * views.height; place++) {
        int64_t b = place / views.height, row = rows[b] + place % views.height;
        const uint8_t* pixel =
            views.images + ((index[b] * views.padded_height + row) * views.padded_width + columns[b]) * channels;
        int64_t step = channels;
        if (mirrored[b]) pixel += (views.width - 1) * channels, step = -channels;
        float* to = out + place * views.width * channels;
        for (int64_t column = 0; column < views.width; column++, pixel += step, to += channels)
            for (int64_t c = 0; c < channels; c++) to[c] = views.table[pixel[c] * channels + c];
    }
}
}
