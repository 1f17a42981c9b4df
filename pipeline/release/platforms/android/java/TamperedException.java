package edgeproof.template;

/** Thrown where a file is not the one that was released: nothing of it was loaded. */
public final class TamperedException extends ModelException {
    private static final long serialVersionUID = 1L;

    TamperedException(String file, String expected, String got) {
        super(file + ": expected sha256 " + expected + "; got " + got + "; add the released package to the app again");
    }
}
