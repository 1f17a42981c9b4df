package edgeproof.template;

/** What the model answers to the golden inputs on this device, and how long it takes, as JSON. */
final class SelfTest {
    private final Constants constants;
    private final String device;
    private final String runtime;

    SelfTest(Constants constants, String device, String runtime) {
        this.constants = constants;
        this.device = device;
        this.runtime = runtime;
    }

    /** Returns the figures as `edgeproof gate --profile` reads them: no verdict, and every sample. */
    String json(int samples, float largestDifference, boolean labelsEqual, long[] samplesNs) {
        StringBuilder text = new StringBuilder(500 + 9 * samplesNs.length);
        text.append("{\"schema_version\": 1");
        add(text, "name", constants.name);
        add(text, "version", constants.version);
        add(text, "platform", "android");
        add(text, "device", device);
        add(text, "model_sha256", constants.modelSha256);
        add(text, "runtime_version", runtime);
        add(text, "scope", constants.scope);
        text.append(", \"golden\": {\"samples\": ").append(samples);
        text.append(", \"largest_difference\": ");
        text.append(Float.isNaN(largestDifference) ? "null" : Float.toString(largestDifference));
        text.append(", \"labels_equal\": ").append(labelsEqual).append("}, \"samples_ns\": [");
        for (int i = 0; i < samplesNs.length; i++) {
            text.append(i == 0 ? "" : ", ").append(samplesNs[i]);
        }
        return text.append("]}").toString();
    }

    private static void add(StringBuilder text, String key, String value) {
        text.append(", \"").append(key).append("\": \"");
        for (int i = 0; i < value.length(); i++) {
            char each = value.charAt(i);
            if (each == '"' || each == '\\') {
                text.append('\\');
            }
            text.append(each < ' ' || each > '~' ? '?' : each);
        }
        text.append('"');
    }
}
