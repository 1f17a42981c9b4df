// swift-tools-version:5.9
// Doubles of what the Swift packages of releases stand on, for a Swift without Apple's libraries.
import PackageDescription

let package = Package(
    name: "onnxruntime-swift-package-manager",
    products: [.library(name: "onnxruntime", targets: ["OnnxRuntimeBindings", "CryptoKit"])],
    targets: [
        .target(name: "OnnxRuntimeBindings", path: "OnnxRuntimeBindings"),
        .target(name: "CryptoKit", path: "CryptoKit"),
    ]
)
