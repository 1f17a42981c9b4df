import Foundation

/// Golden answers and raw latencies on this device: what `edgeproof gate --profile` judges.
public struct SelfTest: Encodable {
    public let schemaVersion = 1
    public let name = Constants.name
    public let version = Constants.version
    public let platform = Constants.platform
    public let device = SelfTest.describeDevice()
    public let modelSHA256 = Constants.modelSHA256
    public let runtimeVersion: String
    public let scope = Constants.scope
    public let samplesNs: [UInt64]
    public let golden: GoldenAnswers

    enum CodingKeys: String, CodingKey {
        case schemaVersion = "schema_version"
        case name, version, platform, device
        case modelSHA256 = "model_sha256"
        case runtimeVersion = "runtime_version"
        case scope
        case samplesNs = "samples_ns"
        case golden
    }

    init(runtimeVersion: String, samplesNs: [UInt64], golden: GoldenAnswers) {
        self.runtimeVersion = runtimeVersion
        self.samplesNs = samplesNs
        self.golden = golden
    }

    /// The JSON to save as the FILE of `edgeproof gate --profile FILE`.
    public func json() throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys]
        return try encoder.encode(self)
    }

    /// Returns model identifier and system; never the name that its owner gave the device.
    static func describeDevice() -> String {
        var facts = utsname()
        uname(&facts)
        let machine = withUnsafeBytes(of: &facts.machine) { bytes in
            String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
        return "\(machine), \(ProcessInfo.processInfo.operatingSystemVersionString)"
    }
}

/// What the model answered to the golden inputs, held against the golden outputs.
public struct GoldenAnswers: Encodable, Equatable {
    public let samples: Int
    /// Of any output; nil where an answer was not finite.
    public let largestDifference: Float?
    public let labelsEqual: Bool
    /// Whether every class is the golden one, and no output further off than another processor's rounding.
    public let hold: Bool

    enum CodingKeys: String, CodingKey {
        case samples
        case largestDifference = "largest_difference"
        case labelsEqual = "labels_equal"
    }

    init(answers: [[Float]], expected: [[Float]], tolerance: Float) {
        let differences = zip(answers.joined(), expected.joined()).map { abs($0 - $1) }
        let isFinite = differences.allSatisfy { $0.isFinite }
        samples = expected.count
        largestDifference = isFinite ? differences.max() : nil
        labelsEqual = answers.map(Processing.topClass) == expected.map(Processing.topClass)
        hold = labelsEqual && isFinite && (differences.max() ?? 0) <= tolerance
    }

    /// Writes null, not nothing, where an answer was not finite.
    public func encode(to encoder: Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(samples, forKey: .samples)
        try container.encode(largestDifference, forKey: .largestDifference)
        try container.encode(labelsEqual, forKey: .labelsEqual)
    }
}
