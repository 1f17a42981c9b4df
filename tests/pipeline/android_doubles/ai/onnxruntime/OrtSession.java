package ai.onnxruntime;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.Arrays;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;

/** Answers an input that is known byte by byte, and refuses any other. */
public class OrtSession implements AutoCloseable {
    private final byte[] inputs = content("double.inputs");
    private final byte[] outputs = content("double.outputs");
    private final int outputBytes = Integer.getInteger("double.outputBytes");
    private boolean closed;

    OrtSession(SessionOptions options) throws OrtException {
        System.out.println("options " + options.entries);
    }

    public Result run(Map<String, ? extends OnnxTensorLike> inputs, Set<String> requestedOutputs) throws OrtException {
        if (closed) {
            throw new IllegalStateException("Trying to score a closed OrtSession.");
        }
        byte[] asked = ((OnnxTensor) inputs.values().iterator().next()).content.array();
        for (int i = 0; (i + 1) * asked.length <= this.inputs.length; i++) {
            if (Arrays.equals(asked, Arrays.copyOfRange(this.inputs, i * asked.length, (i + 1) * asked.length))) {
                byte[] answer = Arrays.copyOfRange(outputs, i * outputBytes, (i + 1) * outputBytes);
                return new Result(ByteBuffer.wrap(answer).order(ByteOrder.LITTLE_ENDIAN));
            }
        }
        throw new OrtException("an input that is none of the known ones");
    }

    @Override
    public void close() throws OrtException {
        closed = true;
    }

    private static byte[] content(String property) {
        try {
            return Files.readAllBytes(Paths.get(System.getProperty(property)));
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
    }

    public static class Result implements AutoCloseable {
        private final ByteBuffer answer;

        Result(ByteBuffer answer) {
            this.answer = answer;
        }

        public OnnxValue get(int index) {
            return OnnxTensor.answer(answer);
        }

        @Override
        public void close() {}
    }

    public static class SessionOptions implements AutoCloseable {
        final Map<String, String> entries = new TreeMap<>();

        public void setIntraOpNumThreads(int numThreads) throws OrtException {
            entries.put("threads", Integer.toString(numThreads));
        }

        public void addConfigEntry(String configKey, String configValue) throws OrtException {
            entries.put(configKey, configValue);
        }

        public void addNnapi() throws OrtException {
            throw new OrtException("NNAPI is not in this build");
        }

        public void addXnnpack(Map<String, String> providerOptions) throws OrtException {
            entries.put("xnnpack", providerOptions.toString());
        }

        @Override
        public void close() {}
    }
}
