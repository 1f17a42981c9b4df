package edgeproof.template;

/** A loaded model. */
interface Inference extends AutoCloseable {
    /** Runs the model on what its input buffer holds, and returns the outputs of the first image. */
    float[] run() throws ModelException;

    /** Returns the runtime, its version and what computes: "onnxruntime 1.30.0, cpu". */
    String runtime();

    @Override
    void close() throws ModelException;
}
