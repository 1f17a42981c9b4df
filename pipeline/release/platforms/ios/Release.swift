import CryptoKit
import Foundation

/// The files of the release as they lie in the app.
struct Release {
    let folder: URL

    /// The release in this package.
    static func bundled() throws -> Release {
        guard let folder = Bundle.module.url(forResource: "Release", withExtension: nil) else {
            throw ClassifierError.missingFile("Release")
        }
        return Release(folder: folder)
    }

    func read(_ name: String) throws -> Data {
        guard let content = try? Data(contentsOf: folder.appendingPathComponent(name), options: .mappedIfSafe) else {
            throw ClassifierError.missingFile(name)
        }
        return content
    }

    /// Returns the path of the model, which is the measured one.
    func verifiedModel() throws -> String {
        let digest = SHA256.hash(data: try read("model.onnx"))
        let found = digest.map { String(format: "%02x", $0) }.joined()
        guard found == Constants.modelSHA256 else {
            throw ClassifierError.tamperedModel(expected: Constants.modelSHA256, found: found)
        }
        return folder.appendingPathComponent("model.onnx").path
    }

    func golden() throws -> Golden {
        try JSONDecoder().decode(Golden.self, from: read("golden.json"))
    }

    /// Returns one array of the golden answers, a piece for each sample.
    func samples(_ array: Golden.Recorded) throws -> [Data] {
        let content = [UInt8](try read(array.file))
        let size = content.count / array.shape[0]
        return (0..<array.shape[0]).map { Data(content[$0 * size..<($0 + 1) * size]) }
    }
}

/// What the model was asked on the device of its verdict, and what it answered.
struct Golden: Decodable {
    struct Recorded: Decodable {
        let shape: [Int]
        let file: String
    }

    let inputs: Recorded
    let outputs: Recorded
    let tolerance: Float
}
