// A double of ONNX Runtime's Swift API (1.24): it answers recorded inputs, bit for bit, and refuses all others.
//
// EDGEPROOF_RECORDED names a folder with inputs.bin and outputs.bin: as many pieces of each, one after the other.
import Foundation

public struct NotRecorded: Error {}

public enum ORTLoggingLevel: Int32 {
    case verbose, info, warning, error, fatal
}

public enum ORTTensorElementDataType: Int32 {
    case undefined, float, int8, uInt8, int32, uInt32, int64, uInt64, string
}

public func ORTVersion() -> String? {
    "0.0.0-double"
}

public final class ORTEnv {
    public init(loggingLevel: ORTLoggingLevel) throws {}
}

public final class ORTRunOptions {}

public final class ORTSessionOptions {
    public init() throws {}
    public func setIntraOpNumThreads(_ threads: Int32) throws {}
    public func addConfigEntry(withKey key: String, value: String) throws {}
}

public final class ORTValue {
    let content: NSMutableData

    public init(tensorData: NSMutableData, elementType: ORTTensorElementDataType, shape: [NSNumber]) throws {
        let values = shape.reduce(1) { $0 * $1.intValue }
        precondition(tensorData.length == values * (elementType == .float ? 4 : 1), "shape and data differ")
        content = tensorData
    }

    public func tensorData() throws -> NSMutableData {
        content
    }
}

public final class ORTSession {
    private let recorded: [(input: Data, output: Data)]

    public init(env: ORTEnv, modelPath: String, sessionOptions: ORTSessionOptions?) throws {
        let folder = URL(fileURLWithPath: ProcessInfo.processInfo.environment["EDGEPROOF_RECORDED"]!)
        let inputs = try Data(contentsOf: folder.appendingPathComponent("inputs.bin"))
        let outputs = try Data(contentsOf: folder.appendingPathComponent("outputs.bin"))
        let count = Int(ProcessInfo.processInfo.environment["EDGEPROOF_SAMPLES"]!)!
        recorded = (0..<count).map { (piece($0, of: inputs, count), piece($0, of: outputs, count)) }
    }

    public func run(
        withInputs inputs: [String: ORTValue], outputNames: Set<String>, runOptions: ORTRunOptions?
    ) throws -> [String: ORTValue] {
        let input = Data(referencing: inputs.first!.value.content)
        guard let answer = recorded.first(where: { $0.input == input }) else {
            throw NotRecorded()
        }
        let output = NSMutableData(data: answer.output)
        let count = NSNumber(value: answer.output.count / 4)
        return [outputNames.first!: try ORTValue(tensorData: output, elementType: .float, shape: [count])]
    }
}

private func piece(_ index: Int, of content: Data, _ count: Int) -> Data {
    let size = content.count / count
    return content.subdata(in: index * size..<(index + 1) * size)
}
