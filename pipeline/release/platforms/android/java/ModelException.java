package edgeproof.template;

/** Thrown where a model cannot be loaded or run; the message says where, what was expected and what came. */
public class ModelException extends Exception {
    private static final long serialVersionUID = 1L;

    ModelException(String message) {
        super(message);
    }

    ModelException(String message, Throwable cause) {
        super(message, cause);
    }
}
