package edgeproof.template;

/** A class and how sure the model is of it. */
public final class Score {
    /** The class's name. */
    public final String label;

    /** Its place in the model's output. */
    public final int index;

    /** Between 0 and 1 where the model's activation is softmax, else the model's output itself. */
    public final float score;

    Score(String label, int index, float score) {
        this.label = label;
        this.index = index;
        this.score = score;
    }

    @Override
    public String toString() {
        return label + " " + score;
    }
}
