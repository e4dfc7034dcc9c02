/// The entry of `known` that `word` was most likely meant to be; nil if none is close.
func nearest(to word: String, in known: some Sequence<String>) -> String? {
  let folded = folded(word)
  guard folded.count <= 64 else { return nil }
  var best: (name: String, distance: Int)?
  for name in known {
    let other = Policies.folded(name)
    if other == folded { return name }
    // A third of the word may be wrong, at least one letter and at most three.
    let allowed = min(3, max(1, max(folded.count, other.count) / 3))
    let distance = editDistance(folded, other, atMost: min(allowed, best.map { $0.distance - 1 } ?? allowed))
    if let distance { best = (name, distance) }
  }
  return best?.name
}

/// `did you mean 'X'?`, if something close is known.
func didYouMean(_ word: String, _ known: some Sequence<String>) -> String? {
  nearest(to: word, in: known).map { "did you mean '\($0)'?" }
}

/// Lower case without `-` and `_`, so that `memLimit`, `mem-limit` and `mem_limit` are one word.
private func folded(_ word: String) -> [UInt8] {
  word.utf8.prefix(65).compactMap { byte in
    switch byte {
    case UInt8(ascii: "A")...UInt8(ascii: "Z"): byte + 32
    case UInt8(ascii: "_"), UInt8(ascii: "-"), UInt8(ascii: " "): nil
    default: byte
    }
  }
}

/// The number of letters inserted, removed, replaced or swapped with their neighbour; nil if over `limit`.
private func editDistance(_ left: [UInt8], _ right: [UInt8], atMost limit: Int) -> Int? {
  guard limit >= 0, abs(left.count - right.count) <= limit else { return nil }
  var beforePrevious: [Int] = []
  var previous = Array(0...right.count)
  for row in 0..<left.count {
    var current = [row + 1]
    for column in 0..<right.count {
      var cost = min(
        previous[column] + (left[row] == right[column] ? 0 : 1), previous[column + 1] + 1, current[column] + 1)
      if row > 0, column > 0, left[row] == right[column - 1], left[row - 1] == right[column] {
        cost = min(cost, beforePrevious[column - 1] + 1)
      }
      current.append(cost)
    }
    beforePrevious = previous
    previous = current
  }
  return previous[right.count] <= limit ? previous[right.count] : nil
}
