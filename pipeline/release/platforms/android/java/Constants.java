package edgeproof.template;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/** How the model is called and what surrounds it, as its release says. */
final class Constants {
    final String name;
    final String version;
    final String modelFile;
    final String modelSha256;
    final String inputName;
    final boolean takesBytes;
    final int batch;
    final int height;
    final int width;
    final int channels;
    final float[] scale;
    final float[] bias;
    final String outputName;
    final boolean softmax;
    final List<String> labels;
    final int threads;
    final List<String> providers;
    final List<String> abis;
    final String scope;
    final String evidence;

    Constants(Release release) throws ModelException {
        name = release.property("name");
        version = release.property("version");
        modelFile = release.property("model.file");
        modelSha256 = release.property("sha256." + modelFile);
        inputName = release.property("input.name");
        takesBytes = release.property("input.layout").equals("uint8_nhwc");
        batch = number(release, "input.batch");
        height = number(release, "input.height");
        width = number(release, "input.width");
        channels = number(release, "input.channels");
        scale = floats(release, "input.scale");
        bias = floats(release, "input.bias");
        outputName = release.property("output.name");
        softmax = release.property("output.activation").equals("softmax");
        labels = lines(release.readText(release.property("labels.file")));
        threads = number(release, "runtime.threads");
        providers = words(release, "runtime.providers");
        abis = words(release, "runtime.abis");
        scope = release.property("latency.scope");
        evidence = release.property("evidence");
    }

    /** Returns how many bytes one image has, row by row, one byte a channel. */
    int imageBytes() {
        return height * width * channels;
    }

    /** Returns how many bytes the model's input has: of a whole batch. */
    int inputBytes() {
        return batch * imageBytes() * (takesBytes ? 1 : 4);
    }

    /** Returns the shape of the model's input. */
    long[] inputShape() {
        return takesBytes
                ? new long[] {batch, height, width, channels}
                : new long[] {batch, channels, height, width};
    }

    static int number(Release release, String key) throws ModelException {
        return Integer.parseInt(release.property(key));
    }

    static List<String> words(Release release, String key) throws ModelException {
        List<String> words = new ArrayList<>();
        Collections.addAll(words, release.property(key).split(","));
        return Collections.unmodifiableList(words);
    }

    static float[] floats(Release release, String key) throws ModelException {
        List<String> words = words(release, key);
        float[] values = new float[words.size()];
        for (int i = 0; i < values.length; i++) {
            values[i] = Float.parseFloat(words.get(i));
        }
        return values;
    }

    private static List<String> lines(String text) {
        List<String> lines = new ArrayList<>();
        Collections.addAll(lines, text.split("\n"));
        return Collections.unmodifiableList(lines);
    }
}
