import Foundation
import Model
import Testing

extension Attacks {
  @Suite("under other presets", .serialized) struct Variants {
    /// Asked of one app, one after another; A23 compares all calls, which the standard preset's test does.
    static let names = Escapes.names.filter { $0 != "A23" }

    @Test(
      "what the table says of a preset, and of what images off the shelf need, is what comes of each call",
      arguments: Ground.available, Variant.allCases.filter { $0 != .standard })
    func preset(_ ground: Ground, _ variant: Variant) throws {
      let arena = try Arena.on(ground)
      let id = "as-\(variant)"
      // No program of the host's own may be written by root.
      let control = try Control("\(arena.instance.root)-\(id)")
      defer { control.end() }
      try FileManager.default.copyItem(atPath: "\(arena.probe)", toPath: "\(control.folder)/suid")
      chown("\(control.folder)/suid", 0, 0)
      chmod("\(control.folder)/suid", 0o4755)
      let up = try arena.launch(id, ["stay"] + Self.names, control: control, readsOnly: true, variant.yaml(ground))
      #expect(up.code == 0, "\(up.err)")
      let answers = arena.answers(id, Self.names.count)
      #expect(answers.map(\.attack) == Self.names)
      for answer in answers {
        let differences = Table.shared.differences(answer, ground, variant)
        #expect(
          differences.isEmpty, "\(answer.attack) on \(ground) as \(variant): \(differences.joined(separator: "; "))")
      }
      arena.remove(id)
      try arena.check(id)
    }
  }
}
