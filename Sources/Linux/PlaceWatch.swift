internal import CLinux
internal import Glibc

/// Tells what happens to one folder or file, and to what lies right in it (inotify(7)): a descriptor that becomes readable.
package final class PlaceWatch: Sendable {
  package struct Event: Sendable, Equatable {
    /// `created`, `changed`, `written` (whoever wrote it has closed it), `removed`, `attributes`, `gone` (what is watched itself), or
    /// `missed`: so much happened that some of it was lost.
    package var kind: String
    /// In the folder; nil: what is watched itself, or a name that is no UTF-8.
    package var name: String?
  }

  private let descriptor: Descriptor

  /// Of an open place, which the calling thread's user must be able to read.
  package init(_ place: Int32) throws(SystemFault) {
    descriptor = Descriptor(owning: try check("inotify_init1") { inotify_init1(Int32(CL_IN_FLAGS)) })
    try descriptor.withRaw { (raw) throws(SystemFault) in
      _ = try check("inotify_add_watch") { inotify_add_watch(raw, "/proc/self/fd/\(place)", UInt32(CL_IN_ALL)) }
    }
  }

  @discardableResult
  package func withRaw<Result: ~Copyable, Failure: Error>(_ body: (Int32) throws(Failure) -> Result) throws(Failure)
    -> Result
  { try descriptor.withRaw(body) }

  /// What has happened since, at most a few hundred events at once.
  package func take() -> [Event] {
    var bytes = [UInt8](repeating: 0, count: 16384)
    let got = descriptor.withRaw { read($0, &bytes, bytes.count) }
    var events: [Event] = []
    var place = 0
    // struct inotify_event: int wd; uint32_t mask, cookie, len; char name[len].
    while place + 16 <= got {
      func word(_ offset: Int) -> UInt32 {
        bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: place + offset, as: UInt32.self) }
      }
      let length = Int(word(12))
      let name = bytes[(place + 16)..<min(place + 16 + length, got)].prefix { $0 != 0 }
      if let kind = Self.kind(Int32(bitPattern: word(4))) {
        events.append(Event(kind: kind, name: name.isEmpty ? nil : String(validating: name, as: UTF8.self)))
      }
      place += 16 + length
    }
    return events
  }

  private static func kind(_ mask: Int32) -> String? {
    func has(_ bit: Int) -> Bool { mask & Int32(truncatingIfNeeded: bit) != 0 }
    if has(Int(CL_IN_OVERFLOW)) { return "missed" }
    if has(Int(CL_IN_MADE)) { return "created" }
    if has(Int(CL_IN_LOST)) { return "removed" }
    if has(Int(CL_IN_SELF)) { return "gone" }
    if has(Int(CL_IN_WRITTEN)) { return "written" }
    if has(Int(CL_IN_CHANGED)) { return "changed" }
    return has(Int(CL_IN_LOOKS)) ? "attributes" : nil
  }
}
