package edgeproof.template;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;

/** What is done before the model: bytes of an image to what the model takes. */
final class Pixels {
    private Pixels() {}

    /** Returns a buffer for the model's input: direct, in the machine's byte order, all zeros. */
    static ByteBuffer newInput(Constants constants) {
        return ByteBuffer.allocateDirect(constants.inputBytes()).order(ByteOrder.nativeOrder());
    }

    /**
     * Writes an image to the first place of `input`: as it is, or as pixel * scale + bias of each channel in float32,
     * one channel after the other.
     */
    static void write(byte[] pixels, Constants constants, ByteBuffer input) {
        if (pixels.length != constants.imageBytes()) {
            throw new IllegalArgumentException(
                    "pixels: expected " + constants.height + " x " + constants.width + " x " + constants.channels
                            + " = " + constants.imageBytes() + " bytes (height x width x channels); got "
                            + pixels.length + "; scale the image to that size first");
        }
        if (constants.takesBytes) {
            ByteBuffer bytes = input.duplicate();
            bytes.clear();
            bytes.put(pixels);
            return;
        }
        FloatBuffer floats = input.asFloatBuffer();
        int channels = constants.channels;
        for (int channel = 0; channel < channels; channel++) {
            float scale = constants.scale[channel];
            float bias = constants.bias[channel];
            for (int at = channel; at < pixels.length; at += channels) {
                floats.put((pixels[at] & 0xff) * scale + bias);
            }
        }
    }
}
