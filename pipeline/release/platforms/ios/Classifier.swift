import Foundation
import OnnxRuntimeBindings

/// A loaded model. One of it is enough for an app; ask it from one thread at a time.
public final class Classifier {
    /// Names of the classes, in the order of the model's outputs.
    public static let labels = Constants.labels
    /// Height, width and channels of the images that it takes.
    public static let imageShape = (Constants.height, Constants.width, Constants.channels)

    private let release: Release
    private let environment: ORTEnv
    private let session: ORTSession

    /// Loads the model of this package, once its digest is the manifest's.
    ///
    /// - Parameter threads: of one inference; as many as were measured, if left out.
    public convenience init(threads: Int32? = nil) throws {
        try self.init(release: Release.bundled(), threads: threads ?? Constants.threads)
    }

    init(release: Release, threads: Int32) throws {
        let model = try release.verifiedModel()
        let options = try ORTSessionOptions()
        try options.setIntraOpNumThreads(threads)
        #if arch(x86_64)
            // Simulators on Intel processors without VNNI would overflow int8 products without this.
            try options.addConfigEntry(withKey: "session.x64quantprecision", value: "1")
        #endif
        self.release = release
        environment = try ORTEnv(loggingLevel: .warning)
        session = try ORTSession(env: environment, modelPath: model, sessionOptions: options)
    }

    /// Returns every class with its score, the likeliest first.
    ///
    /// - Parameter pixels: one image of the model's size: height x width x channels bytes, row by row, as its training
    ///   had them. Resizing is the app's.
    public func classify(_ pixels: Data) throws -> [Classification] {
        Processing.postprocess(try outputs(of: feed(Processing.preprocess(pixels))))
    }

    /// Asks the golden inputs, and times inferences one after the other.
    ///
    /// - Parameters:
    ///   - runs: inferences that are timed.
    ///   - warmup: inferences before them that are not.
    public func selfTest(runs: Int = 1000, warmup: Int = 10) throws -> SelfTest {
        let golden = try release.golden()
        let images = try release.samples(golden.inputs)
        let expected = try release.samples(golden.outputs).map(Processing.floats)
        let answers = try images.map { try outputs(of: feed(Processing.preprocess($0))) }
        return SelfTest(
            runtimeVersion: "onnxruntime \(ORTVersion() ?? "unknown"), cpu",
            samplesNs: try timeInferences(images[0], runs: runs, warmup: warmup),
            golden: GoldenAnswers(answers: answers, expected: expected, tolerance: golden.tolerance)
        )
    }

    private func feed(_ tensor: Data) throws -> ORTValue {
        let sizes =
            Constants.takesBytes
            ? [Constants.batch, Constants.height, Constants.width, Constants.channels]
            : [Constants.batch, Constants.channels, Constants.height, Constants.width]
        return try ORTValue(
            tensorData: NSMutableData(data: tensor),
            elementType: Constants.takesBytes ? .uInt8 : .float,
            shape: sizes.map { NSNumber(value: $0) }
        )
    }

    private func outputs(of feed: ORTValue) throws -> [Float] {
        let answers = try session.run(
            withInputs: [Constants.inputName: feed], outputNames: [Constants.outputName], runOptions: nil
        )
        let answer = try answers[Constants.outputName].map { Data(referencing: try $0.tensorData()) } ?? Data()
        let values = Processing.floats(answer)
        let expected = Constants.batch * Constants.labels.count
        guard values.count == expected else {
            throw ClassifierError.wrongOutput(expected: expected, found: values.count)
        }
        return Array(values.prefix(Constants.labels.count))
    }

    private func timeInferences(_ pixels: Data, runs: Int, warmup: Int) throws -> [UInt64] {
        let tensor = try feed(Processing.preprocess(pixels))
        var samples: [UInt64] = []
        samples.reserveCapacity(runs)
        for run in 0..<(warmup + runs) {
            let start = DispatchTime.now().uptimeNanoseconds
            if Constants.scope == "model" {
                _ = try outputs(of: tensor)
            } else {
                _ = try classify(pixels)
            }
            let end = DispatchTime.now().uptimeNanoseconds
            if run >= warmup {
                samples.append(end - start)
            }
        }
        return samples
    }
}
