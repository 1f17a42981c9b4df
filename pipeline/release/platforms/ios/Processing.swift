import Foundation

/// A class and its score.
public struct Classification: Equatable {
    public let label: String
    public let score: Float
}

/// What comes before and after the model. Floats are computed in the order of the manifest, so that they are the same
/// everywhere.
enum Processing {
    /// Pixels of one image: height x width x channels, row by row.
    static let pixelCount = Constants.height * Constants.width * Constants.channels

    /// Returns what the model takes: the image first in a batch whose rest is zeros.
    static func preprocess(_ pixels: Data) throws -> Data {
        guard pixels.count == pixelCount else {
            throw ClassifierError.wrongPixels(expected: pixelCount, found: pixels.count)
        }
        let bytes = [UInt8](pixels)
        if Constants.takesBytes {
            return Data(bytes) + Data(count: (Constants.batch - 1) * pixelCount)
        }
        var values = [Float](repeating: 0, count: Constants.batch * pixelCount)
        let plane = Constants.height * Constants.width
        for channel in 0..<Constants.channels {
            let scale = Constants.scale[channel]
            let bias = Constants.bias[channel]
            for position in 0..<plane {
                let pixel = Float(bytes[position * Constants.channels + channel])
                values[channel * plane + position] = pixel * scale + bias
            }
        }
        return values.withUnsafeBufferPointer { Data(buffer: $0) }
    }

    /// Returns every class with its score, the likeliest first.
    static func postprocess(_ outputs: [Float]) -> [Classification] {
        let scores = Constants.isSoftmax ? softmax(outputs) : outputs
        let order = outputs.indices.sorted { first, second in
            outputs[first] == outputs[second] ? first < second : outputs[first] > outputs[second]
        }
        return order.map { Classification(label: Constants.labels[$0], score: scores[$0]) }
    }

    static func softmax(_ outputs: [Float]) -> [Float] {
        let largest = outputs.max() ?? 0
        let powers = outputs.map { Float(exp(Double($0 - largest))) }
        let sum = powers.reduce(0, +)
        return powers.map { $0 / sum }
    }

    /// Returns the first of the largest outputs.
    static func topClass(_ outputs: [Float]) -> Int {
        var top = 0
        for index in outputs.indices where outputs[index] > outputs[top] {
            top = index
        }
        return top
    }

    /// Returns little-endian floats, as every device of the platform has them.
    static func floats(_ data: Data) -> [Float] {
        var values = [Float](repeating: 0, count: data.count / MemoryLayout<Float>.size)
        _ = values.withUnsafeMutableBytes { data.copyBytes(to: $0) }
        return values
    }
}
