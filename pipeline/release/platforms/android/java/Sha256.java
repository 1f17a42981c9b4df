package edgeproof.template;

import java.nio.ByteBuffer;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;

/** Digests. */
final class Sha256 {
    private static final String DIGITS = "0123456789abcdef";

    private Sha256() {}

    /** Returns the sha256 of what the buffer holds, in hex; the buffer stays as it was. */
    static String of(ByteBuffer content) {
        MessageDigest sha256;
        try {
            sha256 = MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException("every Java has SHA-256", error);
        }
        sha256.update(content.duplicate());
        StringBuilder text = new StringBuilder(64);
        for (byte each : sha256.digest()) {
            text.append(DIGITS.charAt((each >> 4) & 0xf)).append(DIGITS.charAt(each & 0xf));
        }
        return text.toString();
    }
}
