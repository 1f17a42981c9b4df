package edgeproof.template;

import ai.onnxruntime.OnnxJavaType;
import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import java.nio.ByteBuffer;
import java.nio.FloatBuffer;
import java.util.Collections;

/** The model in ONNX Runtime. */
final class OrtInference implements Inference {
    private final Constants constants;
    private final ByteBuffer input;
    private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
    private final OrtSession.SessionOptions options = new OrtSession.SessionOptions();
    private final OrtSession session;
    private final String runtime;

    /** Loads a model whose digest was checked; `input` is read at every run. */
    OrtInference(ByteBuffer model, ByteBuffer input, Constants constants) throws ModelException {
        this.constants = constants;
        this.input = input;
        try {
            runtime = "onnxruntime " + environment.getVersion() + ", " + configure();
            session = environment.createSession(model, options);
        } catch (OrtException error) {
            options.close();
            throw new ModelException(
                    constants.modelFile + ": expected ONNX Runtime " + environment.getVersion() + " to load it; got: "
                            + error.getMessage() + "; use the version that the package depends on",
                    error);
        }
    }

    @Override
    public float[] run() throws ModelException {
        try (OnnxTensor tensor = tensor();
                OrtSession.Result result = session.run(
                        Collections.singletonMap(constants.inputName, tensor),
                        Collections.singleton(constants.outputName))) {
            FloatBuffer outputs = ((OnnxTensor) result.get(0)).getFloatBuffer();
            float[] first = new float[constants.labels.size()];
            outputs.get(first);
            return first;
        } catch (OrtException error) {
            throw new ModelException(
                    constants.modelFile + ": expected an answer of the model; got: " + error.getMessage(), error);
        }
    }

    @Override
    public String runtime() {
        return runtime;
    }

    @Override
    public void close() throws ModelException {
        try {
            session.close();
        } catch (OrtException error) {
            throw new ModelException(
                    constants.modelFile + ": expected the model to close; got: " + error.getMessage(), error);
        } finally {
            options.close();
        }
    }

    /** Sets threads and execution providers; returns those that this build of the runtime has, in their order. */
    private String configure() throws OrtException {
        // Without VNNI, x86 would saturate products of int8 weights; other processors ignore it.
        options.addConfigEntry("session.x64quantprecision", "1");
        StringBuilder enabled = new StringBuilder();
        boolean xnnpack = false;
        for (String provider : constants.providers) {
            if (provider.equals("cpu") || enable(provider)) {
                enabled.append(provider).append('+');
                xnnpack |= provider.equals("xnnpack");
            }
        }
        if (xnnpack) { // it has threads of its own, beside which the runtime's would only spin
            options.addConfigEntry("session.intra_op.allow_spinning", "0");
        }
        options.setIntraOpNumThreads(xnnpack ? 1 : constants.threads);
        return enabled.length() == 0 ? "cpu" : enabled.substring(0, enabled.length() - 1);
    }

    /** Asks for an execution provider; false where this build of the runtime lacks it, and others compute instead. */
    private boolean enable(String provider) {
        try {
            if (provider.equals("xnnpack")) {
                options.addXnnpack(
                        Collections.singletonMap("intra_op_num_threads", Integer.toString(constants.threads)));
            } else {
                options.addNnapi();
            }
            return true;
        } catch (OrtException missing) {
            return false;
        }
    }

    private OnnxTensor tensor() throws OrtException {
        long[] shape = constants.inputShape();
        return constants.takesBytes
                ? OnnxTensor.createTensor(environment, input, shape, OnnxJavaType.UINT8)
                : OnnxTensor.createTensor(environment, input.asFloatBuffer(), shape);
    }
}
