package ai.onnxruntime;

import java.nio.ByteBuffer;
import java.nio.FloatBuffer;

public class OnnxTensor extends OnnxTensorLike {
    final ByteBuffer content;

    private OnnxTensor(ByteBuffer content) {
        this.content = content;
    }

    public static OnnxTensor createTensor(OrtEnvironment env, FloatBuffer data, long[] shape) throws OrtException {
        checkSize(shape, data.remaining());
        ByteBuffer copy = ByteBuffer.allocate(4 * data.remaining()).order(java.nio.ByteOrder.LITTLE_ENDIAN);
        copy.asFloatBuffer().put(data.duplicate());
        return new OnnxTensor(copy);
    }

    public static OnnxTensor createTensor(OrtEnvironment env, ByteBuffer data, long[] shape, OnnxJavaType type)
            throws OrtException {
        checkSize(shape, data.remaining());
        ByteBuffer copy = ByteBuffer.allocate(data.remaining());
        copy.put(data.duplicate()).flip();
        return new OnnxTensor(copy);
    }

    static OnnxTensor answer(ByteBuffer content) {
        return new OnnxTensor(content);
    }

    public FloatBuffer getFloatBuffer() {
        return content.asFloatBuffer();
    }

    @Override
    public void close() {}

    private static void checkSize(long[] shape, int elements) throws OrtException {
        long expected = 1;
        for (long size : shape) {
            expected *= size;
        }
        if (expected != elements) {
            throw new OrtException("shape of " + expected + " elements, buffer of " + elements);
        }
    }
}
