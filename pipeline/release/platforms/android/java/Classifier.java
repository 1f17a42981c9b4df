package edgeproof.template;

import java.nio.ByteBuffer;
import java.util.List;

/**
 * The released model: pixels in, classes and scores out.
 *
 * <p>One image at a time; several threads may call, and wait for each other.
 */
public final class Classifier implements AutoCloseable {
    private final Release release;
    private final Constants constants;
    private final ByteBuffer input;
    private final Inference inference;
    private final String device;
    private boolean closed;

    Classifier(Release release, Constants constants, ByteBuffer input, Inference inference, String device) {
        this.release = release;
        this.constants = constants;
        this.input = input;
        this.inference = inference;
        this.device = device;
    }

    /** Returns the name of the release. */
    public String name() {
        return constants.name;
    }

    /** Returns the version of the release. */
    public String version() {
        return constants.version;
    }

    /** Returns the height of the images that the model takes. */
    public int height() {
        return constants.height;
    }

    /** Returns the width of the images that the model takes. */
    public int width() {
        return constants.width;
    }

    /** Returns the channels of the images that the model takes: 3 for red, green, blue; 1 for grey. */
    public int channels() {
        return constants.channels;
    }

    /** Returns the names of all classes, in the order of the model's output. */
    public List<String> labels() {
        return constants.labels;
    }

    /** Returns what the release's verdict was measured on, and that it was not this device. */
    public String evidence() {
        return constants.evidence;
    }

    /** Returns the runtime, its version and what computes. */
    public String runtime() {
        return inference.runtime();
    }

    /**
     * Returns every class with its score, the best first.
     *
     * @param pixels height x width x channels bytes, row by row, each pixel's channels together
     */
    public synchronized List<Score> classify(byte[] pixels) throws ModelException {
        checkOpen();
        Pixels.write(pixels, constants, input);
        return Scores.of(inference.run(), constants);
    }

    /**
     * Asks the model what it was asked when it was measured, times it, and returns both as JSON for `edgeproof gate`.
     *
     * @param runs how many inferences to time, one by one; 400 or more tell a p99, 6,000 where one takes less than 0.6 ms
     * @param warmup how many to run before
     */
    public synchronized String selfTest(int runs, int warmup) throws ModelException {
        if (runs < 1 || warmup < 0) {
            throw new IllegalArgumentException(
                    "selfTest: expected runs >= 1 and warmup >= 0; got " + runs + " and " + warmup);
        }
        checkOpen();
        Golden golden = new Golden(release, constants);
        float largest = 0;
        boolean labelsEqual = true;
        for (int i = 0; i < golden.samples; i++) {
            Pixels.write(golden.image(i), constants, input);
            float[] answer = inference.run();
            float difference = golden.difference(i, answer);
            largest = Float.isNaN(difference) ? difference : Math.max(largest, difference); // NaN stays
            labelsEqual &= !Float.isNaN(difference) && golden.isSameClass(i, answer);
        }
        for (int i = 0; i < warmup; i++) {
            time(golden.image(i));
        }
        long[] samplesNs = new long[runs];
        for (int i = 0; i < runs; i++) {
            samplesNs[i] = time(golden.image(i));
        }
        return new SelfTest(constants, device, runtime()).json(golden.samples, largest, labelsEqual, samplesNs);
    }

    /** Gives back what the runtime holds; the classifier cannot be used afterwards. */
    @Override
    public synchronized void close() throws ModelException {
        if (!closed) {
            closed = true;
            inference.close();
        }
    }

    /** Returns the nanoseconds of one inference in the scope that the budget is for. */
    private long time(byte[] pixels) throws ModelException {
        if (constants.scope.equals("end_to_end")) {
            long start = System.nanoTime();
            Pixels.write(pixels, constants, input);
            Scores.of(inference.run(), constants);
            return System.nanoTime() - start;
        }
        Pixels.write(pixels, constants, input);
        long start = System.nanoTime();
        inference.run();
        return System.nanoTime() - start;
    }

    private void checkOpen() {
        if (closed) {
            throw new IllegalStateException(constants.name + ": expected an open classifier; got a closed one");
        }
    }
}
