package edgeproof.template;

import android.content.res.AssetFileDescriptor;
import android.content.res.AssetManager;
import java.io.FileInputStream;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;

/** The release among the assets of an app. */
final class AssetFiles implements ReleaseFiles {
    private static final int BLOCK = 1 << 16;

    private final AssetManager assets;

    AssetFiles(AssetManager assets) {
        this.assets = assets;
    }

    @Override
    public ByteBuffer read(String name) throws IOException {
        String path = Pinned.FOLDER + name;
        try (AssetFileDescriptor asset = assets.openFd(path);
                FileInputStream stream = new FileInputStream(asset.getFileDescriptor())) {
            return stream.getChannel()
                    .map(FileChannel.MapMode.READ_ONLY, asset.getStartOffset(), asset.getDeclaredLength());
        } catch (FileNotFoundException compressed) { // the app's build compressed it, or it is not there
            return copy(path);
        }
    }

    private ByteBuffer copy(String path) throws IOException {
        try (InputStream stream = assets.open(path)) {
            ByteBuffer content = ByteBuffer.allocateDirect(BLOCK);
            byte[] block = new byte[BLOCK];
            for (int count = stream.read(block); count >= 0; count = stream.read(block)) {
                if (count > content.remaining()) {
                    content.flip();
                    content = ByteBuffer.allocateDirect(2 * content.capacity()).put(content);
                }
                content.put(block, 0, count);
            }
            content.flip();
            return content;
        }
    }
}
