import Foundation
import Model
import Testing

@Suite("what is left over", .serialized) struct PruneTests {
  @Test(
    "prune shows and removes what nothing uses, and nothing of an app that is known", arguments: StreamPlace.available)
  func prune(_ place: StreamPlace) throws {
    let volume = "volumes: [{type: volume, source: NAME, target: /own}]\n"
    func app(_ id: String) -> String {
      place.app(
        id, "echo said; echo kept > /own/x; sleep 1000", volume.replacingOccurrences(of: "NAME", with: "of-\(id)"))
    }
    try place.with(["stays": app("stays"), "goes": app("goes"), "stopped": app("stopped")]) { instance in
      for name in ["stays", "goes", "stopped"] { instance.wait(name) { $0["state"] == "running" } }
      #expect(instance.run("stop", "-t", "1s", "stopped").code == 0)
      #expect(instance.run("down", "goes", "-t", "1s").code == 0)
      func left(_ arguments: String...) -> [String] {
        let found = instance.run(["prune", "--format", "json"] + arguments).lines.first
        return (found?["items"]?.arrayValue ?? []).map {
          "\($0["kind"]?.stringValue ?? "") \($0["name"]?.stringValue ?? "")"
        }
        .filter { !$0.hasPrefix("image ") }.sorted()
      }
      #expect(left("--dry-run").allSatisfy { $0 == "log goes" })
      let all = left("--dry-run", "--volumes")
      #expect(
        all.contains("volume of-goes") && !all.contains { $0.contains("stays") || $0.contains("stopped") }, "\(all)")
      #expect(instance.run("prune").code == 2, "it asks")
      let table = instance.run("prune", "--dry-run", "--volumes")
      #expect(table.out.contains("of-goes") && table.out.contains("would be freed"), "\(table)")
      #expect(left("-y", "--volumes") == all)
      #expect(left("--dry-run", "--volumes").isEmpty)
      let files = FileManager.default
      #expect(!files.fileExists(atPath: "\(instance.root)/state/volumes/of-goes"))
      for name in ["stays", "stopped"] {
        #expect(files.fileExists(atPath: "\(instance.root)/state/volumes/of-\(name)/x"), "\(name)")
      }
      #expect(instance.app("stays")?["state"] == "running" && instance.run("logs", "stopped").out == "said\n")
    }
  }
}
