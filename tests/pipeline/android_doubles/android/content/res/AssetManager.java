package android.content.res;

import java.io.ByteArrayInputStream;
import java.io.FileInputStream;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;

/** Assets of an archive, as Android gives them: a descriptor only of what is stored. */
public final class AssetManager {
    private final String archive = System.getProperty("double.archive");

    public AssetFileDescriptor openFd(String fileName) throws IOException {
        ByteBuffer raw = ByteBuffer.wrap(Files.readAllBytes(Paths.get(archive))).order(ByteOrder.LITTLE_ENDIAN);
        for (int at = 0; raw.getInt(at) == 0x04034b50; ) {
            int method = raw.getShort(at + 8);
            int size = raw.getInt(at + 18);
            int nameLength = raw.getShort(at + 26);
            int start = at + 30 + nameLength + raw.getShort(at + 28);
            String name = new String(raw.array(), at + 30, nameLength, StandardCharsets.US_ASCII);
            if (name.equals("assets/" + fileName) && method == ZipEntry.STORED) {
                return new AssetFileDescriptor(new FileInputStream(archive), start, size);
            }
            at = start + size;
        }
        throw new FileNotFoundException(fileName + ": it is probably compressed");
    }

    public InputStream open(String fileName) throws IOException {
        System.out.println("copied " + fileName.substring(fileName.lastIndexOf('/') + 1));
        try (ZipFile zip = new ZipFile(archive)) {
            ZipEntry entry = zip.getEntry("assets/" + fileName);
            if (entry == null) {
                throw new FileNotFoundException(fileName);
            }
            byte[] content = new byte[(int) entry.getSize()];
            new java.io.DataInputStream(zip.getInputStream(entry)).readFully(content);
            return new ByteArrayInputStream(content);
        }
    }
}
