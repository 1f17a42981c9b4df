package edgeproof.template;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;

/** What the model was asked on the device that it was measured on, and what it answered there. */
final class Golden {
    final int samples;
    private final byte[][] images;
    private final float[][] outputs;

    Golden(Release release, Constants constants) throws ModelException {
        samples = Constants.number(release, "golden.samples");
        int classes = constants.labels.size();
        ByteBuffer bytes = release.read(release.property("golden.images"));
        FloatBuffer floats = release.read(release.property("golden.outputs"))
                .duplicate().order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer();
        images = new byte[samples][constants.imageBytes()];
        outputs = new float[samples][classes];
        for (int i = 0; i < samples; i++) {
            bytes.get(images[i]);
            floats.get(outputs[i]);
        }
    }

    /** Returns the bytes of an image, as a camera gave them; of the first again after the last. */
    byte[] image(int sample) {
        return images[sample % samples];
    }

    /** Returns whether the class of the answer to an image is the golden one. */
    boolean isSameClass(int sample, float[] answer) {
        return Scores.largest(answer) == Scores.largest(outputs[sample]);
    }

    /** Returns the largest absolute difference from the golden answer; NaN where an output is not finite. */
    float difference(int sample, float[] answer) {
        float largest = 0;
        for (int i = 0; i < answer.length; i++) {
            float difference = Math.abs(answer[i] - outputs[sample][i]);
            if (Float.isNaN(difference) || Float.isInfinite(difference)) {
                return Float.NaN;
            }
            largest = Math.max(largest, difference);
        }
        return largest;
    }
}
