// A double of Apple's CryptoKit: SHA-256 as FIPS 180-4 writes it.
import Foundation

public struct SHA256Digest: Sequence {
    let bytes: [UInt8]

    public func makeIterator() -> IndexingIterator<[UInt8]> {
        bytes.makeIterator()
    }
}

public enum SHA256 {
    public static func hash(data: Data) -> SHA256Digest {
        var message = [UInt8](data) + [0x80]
        message += [UInt8](repeating: 0, count: (120 - message.count % 64) % 64)
        message += (0..<8).map { UInt8(truncatingIfNeeded: (data.count * 8) >> (56 - 8 * $0)) }
        var state = roots(of: 8, cube: false)
        let constants = roots(of: 64, cube: true)
        for start in stride(from: 0, to: message.count, by: 64) {
            absorb(message[start..<start + 64], into: &state, constants)
        }
        let bytes = state.flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> (24 - 8 * $0)) } }
        return SHA256Digest(bytes: bytes)
    }

    private static func absorb(_ block: ArraySlice<UInt8>, into state: inout [UInt32], _ constants: [UInt32]) {
        let bytes = [UInt8](block)
        var words = (0..<16).map { at in (0..<4).reduce(UInt32(0)) { $0 << 8 | UInt32(bytes[4 * at + $1]) } }
        for at in 16..<64 {
            let (early, late) = (words[at - 15], words[at - 2])
            let first = turn(early, 7) ^ turn(early, 18) ^ early >> 3
            let second = turn(late, 17) ^ turn(late, 19) ^ late >> 10
            words.append(words[at - 16] &+ first &+ words[at - 7] &+ second)
        }
        var s = state
        for at in 0..<64 {
            let choice = (s[4] & s[5]) ^ (~s[4] & s[6])
            let majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2])
            let mixed = turn(s[4], 6) ^ turn(s[4], 11) ^ turn(s[4], 25)
            let first = s[7] &+ mixed &+ choice &+ constants[at] &+ words[at]
            let second = (turn(s[0], 2) ^ turn(s[0], 13) ^ turn(s[0], 22)) &+ majority
            s = [first &+ second, s[0], s[1], s[2], s[3] &+ first, s[4], s[5], s[6]]
        }
        state = zip(state, s).map { $0 &+ $1 }
    }

    private static func turn(_ word: UInt32, _ count: UInt32) -> UInt32 {
        word >> count | word << (32 - count)
    }

    /// Returns 32 bits behind the point of square or cube roots of the first primes.
    private static func roots(of count: Int, cube: Bool) -> [UInt32] {
        let primes = (2...).lazy.filter { number in !(2..<number).contains { number % $0 == 0 } }.prefix(count)
        return primes.map { prime in
            let root = cube ? cbrt(Double(prime)) : sqrt(Double(prime))
            return UInt32((root - root.rounded(.down)) * 4_294_967_296)
        }
    }
}
