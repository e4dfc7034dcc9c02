import Foundation
import Glibc
import Testing

/// What one run of a program came to.
struct Outcome {
  var code: Int32
  var out: String
  var err: String
}

/// A program that was started. Not by Foundation, whose `Process` waits for whatever the program has left running, and whose
/// bookkeeping does not survive hundreds of them.
final class Started {
  private let arguments: [String]
  private let folder: String
  let pid: pid_t

  /// `arguments` begins with the program, which is looked for on PATH.
  init(_ arguments: [String], _ environment: [String: String]) throws {
    self.arguments = arguments
    var template = Array("/tmp/appsup-run.XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw POSIXError(.EIO) }
    folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    // Files, not pipes: a daemon that is started must not keep them open for a reader.
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 1, "\(folder)/out", O_WRONLY | O_CREAT, 0o600)
    posix_spawn_file_actions_addopen(&actions, 2, "\(folder)/err", O_WRONLY | O_CREAT, 0o600)
    var words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
    var variables: [UnsafeMutablePointer<CChar>?] = environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
    defer { for word in words + variables { free(word) } }
    var child: pid_t = 0
    let code = posix_spawnp(&child, arguments[0], &actions, nil, &words, &variables)
    guard code == 0 else { throw POSIXError(POSIXErrorCode(rawValue: code) ?? .EIO) }
    pid = child
  }

  func kill() { Glibc.kill(pid, SIGKILL) }

  /// As Ctrl-C does.
  func interrupt() { Glibc.kill(pid, SIGINT) }

  /// Waits for its end; after `seconds` it is killed, and its code is -2.
  func finish(within seconds: Double) -> Outcome {
    defer { try? FileManager.default.removeItem(atPath: folder) }
    func text(_ name: String) -> String { (try? String(contentsOfFile: "\(folder)/\(name)", encoding: .utf8)) ?? "" }
    var status: Int32 = 0
    let deadline = Date().addingTimeInterval(seconds)
    while waitpid(pid, &status, WNOHANG) == 0 {
      if Date() > deadline {
        let processes = Self.processes()
        kill()
        waitpid(pid, &status, 0)
        return Outcome(
          code: -2, out: text("out"), err: "timed out: \(arguments)\n\(text("err"))\nmeanwhile:\n\(processes)")
      }
      usleep(1000)
    }
    let code = status & 0x7F == 0 ? (status >> 8) & 0xFF : 128 + status & 0x7F
    return Outcome(code: code, out: text("out"), err: text("err"))
  }
}

extension Started {
  /// What runs on this host, for a test that waited in vain: with what each waits in, and the signals it keeps back.
  private static func processes() -> String {
    guard let listing = try? Started(["ps", "-eo", "pid,ppid,stat,wchan:20,blocked,args"], ["PATH": "/usr/bin:/bin"])
    else { return "" }
    return listing.finish(within: 5).out.split(separator: "\n").filter { !$0.hasSuffix("]") }
      .map { String($0.prefix(220)) }.joined(separator: "\n")
  }
}

/// Other programs.
enum Shell {
  /// Runs a program found on PATH to its end.
  @discardableResult
  static func run(_ arguments: [String], within seconds: Double = 120) -> Outcome {
    do {
      return try Started(arguments, ProcessInfo.processInfo.environment).finish(within: seconds)
    } catch { return Outcome(code: -1, out: "", err: "\(error)") }
  }
}
