internal import Glibc
internal import Linux
internal import Model
internal import Policies

/// Follows policy files and the env files they name: `up --watch`.
final class PolicyWatch {
  private var watch: FilesWatch
  private let interrupt: Interrupt
  private var interesting: (String) -> Bool
  /// How long nothing must happen before the files are read: an editor writes several, or one several times.
  private static let quiet: Int32 = 150

  init(_ files: PolicyFiles, _ interrupt: Interrupt) throws {
    self.interrupt = interrupt
    interesting = files.isWatched
    do throws(SystemFault) { watch = try FilesWatch(files.watchedFolders) } catch {
      throw Failure(1, "the files cannot be followed: \(error)", hint: "`up` without --watch loads them once")
    }
  }

  /// Calls `reload` each time files have changed and nobody writes one of them, until Ctrl-C.
  func run(_ reload: () throws -> Void) throws {
    Output.error("following the files; Ctrl-C ends that, and apps run on")
    var isDue = false
    while true {
      let isBusy = watch.unfinished.contains { interesting($0) }
      guard try wait(isDue && !isBusy ? Self.quiet : -1) else {
        // Nothing happened for a while.
        isDue = false
        try reload()
        continue
      }
      if isInterrupted { return }
      let (whole, gone, overflow) = watch.take()
      if let folder = gone.sorted().first {
        throw Failure(1, "\(folder) is gone", hint: "what is applied stays; start `up --watch` again once it is back")
      }
      if overflow || whole.contains(where: { interesting($0) }) { isDue = true }
    }
  }

  private var isInterrupted = false

  /// False: the time is over.
  private func wait(_ milliseconds: Int32) throws -> Bool {
    let file = watch.withRaw { $0 }
    var polled = [
      pollfd(fd: file, events: Int16(POLLIN), revents: 0), pollfd(fd: interrupt.raw, events: Int16(POLLIN), revents: 0),
    ]
    do throws(SystemFault) {
      guard try check("poll", "", { poll(&polled, 2, milliseconds) }) > 0 else { return false }
    } catch { throw Failure(1, "\(error)") }
    if polled[1].revents != 0 {
      interrupt.consume()
      isInterrupted = true
    }
    return true
  }
}

extension PolicyFiles {
  /// Folders whose changes matter: of the files, and of the env files they name.
  var watchedFolders: Set<String> {
    var folders = Set(roots.map { File.isFolder($0) ? $0 : Self.folder(of: $0) })
    for entry in entries {
      for named in entry.source.envFiles.keys {
        folders.insert(Self.folder(of: Environment.absolute(named, in: entry.source.folder)))
      }
    }
    return folders
  }

  /// Whether a path in one of them is, or may become, one of these files.
  var isWatched: (String) -> Bool {
    let roots = roots
    let envFiles = Set(
      entries.flatMap { entry in
        entry.source.envFiles.keys.map { Environment.absolute($0, in: entry.source.folder) }
      })
    return { path in
      if roots.contains(path) || envFiles.contains(path) { return true }
      let name = path.split(separator: "/").last.map(String.init) ?? ""
      return roots.contains(Self.folder(of: path)) && Self.isPolicy(name)
    }
  }

  private static func folder(of path: String) -> String {
    "/" + path.split(separator: "/").dropLast().joined(separator: "/")
  }
}

extension File {
  static func isFolder(_ path: String) -> Bool {
    var facts = stat()
    return stat(path, &facts) == 0 && facts.st_mode & S_IFMT == S_IFDIR
  }
}
