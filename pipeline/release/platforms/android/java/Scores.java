package edgeproof.template;

import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;

/** What is done after the model: its outputs to labels and scores. */
final class Scores implements Comparator<Score> {
    private static final Scores BEST_FIRST = new Scores();

    private Scores() {}

    /** Returns every class, the best first; of equal ones the first of the model's output. */
    static List<Score> of(float[] outputs, Constants constants) throws ModelException {
        float top = outputs[largest(outputs)];
        double sum = 0;
        for (float output : outputs) {
            if (Float.isNaN(output) || Float.isInfinite(output)) {
                throw new ModelException(
                        constants.name + ": expected finite outputs; got " + output + "; run selfTest() on this device");
            }
            sum += Math.exp(output - top);
        }
        List<Score> scores = new ArrayList<>(outputs.length);
        for (int i = 0; i < outputs.length; i++) {
            float score = constants.softmax ? (float) (Math.exp(outputs[i] - top) / sum) : outputs[i];
            scores.add(new Score(constants.labels.get(i), i, score));
        }
        Collections.sort(scores, BEST_FIRST);
        return Collections.unmodifiableList(scores);
    }

    /** Returns the index of the first of the largest. */
    static int largest(float[] outputs) {
        int best = 0;
        for (int i = 1; i < outputs.length; i++) {
            if (outputs[i] > outputs[best]) {
                best = i;
            }
        }
        return best;
    }

    @Override
    public int compare(Score first, Score second) {
        return Float.compare(second.score, first.score);
    }
}
