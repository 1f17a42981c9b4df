package edgeproof.template;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Properties;

/** The files of a release, each of which is given out only if it is the one that was released. */
final class Release {
    private static final String PROPERTIES = "model.properties";

    private final ReleaseFiles files;
    private final Properties properties;

    private Release(ReleaseFiles files, Properties properties) {
        this.files = files;
        this.properties = properties;
    }

    /** Opens the release whose digest is written into these classes. */
    static Release open(ReleaseFiles files) throws ModelException {
        byte[] content = bytes(verified(files, PROPERTIES, Pinned.PROPERTIES_SHA256));
        Properties properties = new Properties();
        try {
            properties.load(new ByteArrayInputStream(content));
        } catch (IOException error) {
            throw new IllegalStateException("bytes in memory can be read", error);
        }
        return new Release(files, properties);
    }

    /** Returns a file whose digest was compared with the released one. */
    ByteBuffer read(String name) throws ModelException {
        return verified(files, name, property("sha256." + name));
    }

    /** Returns a text file in UTF-8. */
    String readText(String name) throws ModelException {
        return new String(bytes(read(name)), StandardCharsets.UTF_8);
    }

    /** Returns the value of a property that every release has. */
    String property(String key) throws ModelException {
        String value = properties.getProperty(key);
        if (value == null) {
            throw new ModelException(PROPERTIES + ": expected a property " + key + "; got none; package it again");
        }
        return value;
    }

    private static ByteBuffer verified(ReleaseFiles files, String name, String expected) throws ModelException {
        ByteBuffer content;
        try {
            content = files.read(name);
        } catch (IOException error) {
            throw new ModelException(name + ": expected this file of the release; got: " + error, error);
        }
        String got = Sha256.of(content);
        if (!got.equals(expected)) {
            throw new TamperedException(name, expected, got);
        }
        return content;
    }

    private static byte[] bytes(ByteBuffer content) {
        byte[] copy = new byte[content.remaining()];
        content.duplicate().get(copy);
        return copy;
    }
}
