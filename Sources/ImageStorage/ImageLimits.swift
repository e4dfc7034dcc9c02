/// How much an archive may ask for; each is named in the error that its excess brings.
package struct ImageLimits: Sendable, Equatable {
  /// Files in the archive itself.
  package var members = 20_000
  /// Images in one archive.
  package var images = 16
  /// As many as engines allow.
  package var layers = 127
  /// Files in all layers together.
  package var entries = 1_000_000
  /// Bytes of a manifest or configuration.
  package var document = 4 << 20
  /// Bytes of all that is unpacked; a sparse file counts with its apparent size.
  package var unpacked: UInt64 = 32 << 30
  /// How many times its own size a layer may unpack to, once it is beyond `expansionFrom`.
  package var expansion: UInt64 = 200
  package var expansionFrom: UInt64 = 64 << 20
  /// Components of a path.
  package var depth = 128
  /// Bytes of a path.
  package var path = 4095
  /// Folders that hide what lower layers have in them.
  package var opaqueFolders = 100_000
  /// Of the process that unpacks.
  package var processorSeconds: UInt64 = 1200
  package var memory: UInt64 = 2 << 30
  /// Part of the disk that stays free, as 1/n of it, at most `keptFree` bytes.
  package var freePart: UInt64 = 20
  package var keptFree: UInt64 = 1 << 30

  package init() {}
}

/// Why an image could not be taken in, or is not had; the text is for the user.
package enum ImageProblem: Error, Sendable, Equatable, CustomStringConvertible {
  /// The archive is not one, is cut short, or contradicts itself.
  case malformed(String)
  /// It asks for what must not be.
  case refused(String)
  /// One of `ImageLimits`.
  case tooMuch(String)
  case missing(String)
  case inUse(String)
  /// A system call failed: a full disk above all.
  case failed(String)

  package var description: String {
    switch self {
    case .malformed(let text), .refused(let text), .tooMuch(let text), .missing(let text), .inUse(let text),
      .failed(let text):
      text
    }
  }

  /// Its kind as a word, to cross from one process to another.
  var word: String {
    switch self {
    case .malformed: "malformed"
    case .refused: "refused"
    case .tooMuch: "too_much"
    case .missing: "missing"
    case .inUse: "in_use"
    case .failed: "failed"
    }
  }

  init(word: String, _ text: String) {
    switch word {
    case "malformed": self = .malformed(text)
    case "refused": self = .refused(text)
    case "too_much": self = .tooMuch(text)
    case "missing": self = .missing(text)
    case "in_use": self = .inUse(text)
    default: self = .failed(text)
    }
  }
}
