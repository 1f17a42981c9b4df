package edgeproof.template;

import java.io.IOException;
import java.nio.ByteBuffer;

/** Where the files of a release lie. */
interface ReleaseFiles {
    /** Returns a file of the release as a direct buffer, mapped into memory where that is possible. */
    ByteBuffer read(String name) throws IOException;
}
