package edgeproof.template;

import android.content.Context;
import android.os.Build;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;

/** Loads the released model from the app's assets. */
public final class Model {
    private Model() {}

    /**
     * Returns the model, ready to classify; its digest was checked before. It takes a while: not on the main thread.
     *
     * @throws TamperedException where a file is not the one that was released
     * @throws ModelException where a file is missing, or the runtime refuses the model
     */
    public static Classifier load(Context context) throws ModelException {
        Release release = Release.open(new AssetFiles(context.getAssets()));
        Constants constants = new Constants(release);
        List<String> abis = Arrays.asList(Build.SUPPORTED_ABIS);
        if (Collections.disjoint(abis, constants.abis)) {
            throw new ModelException(
                    constants.name + ": expected a device of one of " + constants.abis + "; got " + abis
                            + "; name its ABI in the recipe's [release]");
        }
        ByteBuffer input = Pixels.newInput(constants);
        Inference inference = new OrtInference(release.read(constants.modelFile), input, constants);
        String device = Build.MANUFACTURER + " " + Build.MODEL + ", Android " + Build.VERSION.RELEASE + ", " + abis;
        return new Classifier(release, constants, input, inference, device);
    }
}
