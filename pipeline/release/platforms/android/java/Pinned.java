package edgeproof.template;

/** What packaging writes into these classes: where the release lies, and what it must be. */
final class Pinned {
    /** Folder of the release among the app's assets, with a slash at its end. */
    static final String FOLDER = "@folder@";

    /** Digest of model.properties, which holds the digests of all other files. */
    static final String PROPERTIES_SHA256 = "@properties_sha256@";

    private Pinned() {}
}
