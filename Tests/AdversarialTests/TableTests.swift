import Foundation
import Testing

extension Attacks {
  @Suite("the table of attacks") struct Tables {
    @Test("every attack of the threat model is tried, or it is said why not")
    func complete() throws {
      let table = Table.shared
      #expect(table.malformed == [])
      let known = (Array(1...47) + Array(60...68)).map { "A\($0 < 10 ? "0" : "")\($0)" }
      let places =
        Set(table.rows.map(\.attack)).map { ($0, "rows") } + table.elsewhere.map { ($0.attack, "elsewhere") }
        + table.leftOut.map { ($0.attack, "left out") }
      for name in known {
        #expect(places.filter { $0.0 == name }.count == 1, "\(name): \(places.filter { $0.0 == name })")
      }
      #expect(table.leftOut.allSatisfy { $0.reason.count > 10 })
      let inFamilies = table.families.flatMap(\.attacks)
      #expect(Set(inFamilies) == Set(table.rows.map(\.attack)) && Set(inFamilies).count == inFamilies.count)
    }

    @Test("a test that is named as trying an attack exists")
    func references() throws {
      let tests = "\(Instance.sources)/Tests"
      let files = try FileManager.default.subpathsOfDirectory(atPath: tests)
      for (attack, names) in Table.shared.elsewhere {
        #expect(!names.isEmpty)
        for name in names {
          let parts = name.split(separator: ".").map(String.init)
          try #require(parts.count == 2, "\(name)")
          let texts = try files.filter { $0.hasSuffix("/\(parts[0]).swift") }.map {
            try String(contentsOfFile: "\(tests)/\($0)", encoding: .utf8)
          }
          let exists = texts.contains { $0.contains("func \(parts[1])(") }
          #expect(exists, "\(attack): \(name)")
        }
      }
    }

    @Test("every promise of the README names tests that exist")
    func promises() throws {
      let readme = try String(contentsOfFile: "\(Instance.sources)/README.md", encoding: .utf8)
      let part = try #require(readme.components(separatedBy: "## Promises").dropFirst().first)
      let rows = part.components(separatedBy: "\n## ")[0].split(separator: "\n").filter { $0.hasPrefix("| ") }
        .dropFirst()
      #expect(rows.count > 20)
      let tests = "\(Instance.sources)/Tests"
      let files = try FileManager.default.subpathsOfDirectory(atPath: tests).filter { $0.hasSuffix(".swift") }
      let sources = try files.map { try String(contentsOfFile: "\(tests)/\($0)", encoding: .utf8) }
      for row in rows {
        let cells = row.split(separator: "|")
        let names = (cells.last ?? "").components(separatedBy: "`").enumerated().filter { $0.offset % 2 == 1 }.map(
          \.element)
        #expect(!names.isEmpty, "\(row)")
        var suite = ""
        for name in names {
          if name.contains("/") {
            let places = ["\(Instance.sources)/\(name)", "\(tests)/\(name).swift"]
            #expect(places.contains { FileManager.default.fileExists(atPath: $0) }, "\(name)")
            continue
          }
          let parts = name.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
          if let first = parts.first, !first.isEmpty { suite = first }
          let found = zip(files, sources).filter {
            $0.0.hasSuffix("/\(suite).swift") || $0.1.contains("struct \(suite)")
          }
          #expect(!found.isEmpty, "\(name) in: \(row)")
          guard parts.count > 1, let function = parts.last else { continue }
          #expect(found.contains { $0.1.contains("func \(function)(") }, "\(name) in: \(row)")
        }
      }
    }

    @Test("the README shows what the suite holds to")
    func readme() throws {
      let text = try String(contentsOfFile: "\(Instance.sources)/README.md", encoding: .utf8)
      #expect(text.contains(Table.shared.summary), "the table should be:\n\(Table.shared.summary)")
      let variants = Table.shared.variantSummary
      #expect(text.contains(variants), "the presets' table should be:\n\(variants)")
    }
  }
}
