package ai.onnxruntime;

import java.nio.ByteBuffer;

public final class OrtEnvironment implements AutoCloseable {
    private static final OrtEnvironment INSTANCE = new OrtEnvironment();

    public static OrtEnvironment getEnvironment() {
        return INSTANCE;
    }

    public OrtSession createSession(ByteBuffer modelBuffer, OrtSession.SessionOptions options) throws OrtException {
        if (!modelBuffer.isDirect()) {
            throw new OrtException("ByteBuffer is not direct.");
        }
        return new OrtSession(options);
    }

    public String getVersion() {
        return "1.30.0";
    }

    @Override
    public void close() {}
}
