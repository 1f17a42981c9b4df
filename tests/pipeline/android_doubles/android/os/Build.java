package android.os;

public class Build {
    public static final String MANUFACTURER = given("Acme");
    public static final String MODEL = given("\"Phone\" 1");
    public static final String[] SUPPORTED_ABIS = {given(System.getProperty("double.abi", "arm64-v8a"))};

    public static class VERSION {
        public static final String RELEASE = given("15");
    }

    /** Keeps the compiler from writing the value into the classes that read it. */
    private static String given(String value) {
        return value;
    }
}
