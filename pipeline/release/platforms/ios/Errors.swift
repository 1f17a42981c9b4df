import Foundation

/// Why a model cannot be used, or an image not be classified.
public enum ClassifierError: Error, Equatable, LocalizedError {
    /// A file of the package is not in the app.
    case missingFile(String)
    /// The model is not the one that was measured.
    case tamperedModel(expected: String, found: String)
    /// The pixels are not those of one image of the model's size.
    case wrongPixels(expected: Int, found: Int)
    /// The model answered with another number of outputs than there are classes.
    case wrongOutput(expected: Int, found: Int)

    public var errorDescription: String? {
        switch self {
        case .missingFile(let name):
            return "\(Constants.name): expected \(name) in the app; got none; add the package again"
        case .tamperedModel(let expected, let found):
            return "\(Constants.name): model.onnx: expected sha256 \(expected); got \(found); add the package again"
        case .wrongPixels(let expected, let found):
            return "\(Constants.name): pixels: expected \(expected) bytes; got \(found); resize the image"
        case .wrongOutput(let expected, let found):
            return "\(Constants.name): expected \(expected) outputs; got \(found); take the package's ONNX Runtime"
        }
    }
}
