internal import Cgroups
internal import Glibc
internal import Model

/// Which containers this host knows, and how far each has come. What is decided here is decided without suspending.
actor Register {
  enum Stage: Equatable {
    case created
    /// Being started; an end that comes meanwhile is told once the start has been judged.
    case starting(ended: Bool)
    case running
    case ended
    /// Killed or never run because the start failed: its end is told by the start's error alone.
    case rejected
  }

  struct Entry {
    var instance: Instance
    var launch: Launch
    var stage: Stage
    var paused = false
    /// Pauses and resumes of our own whose events are still to come; they can come late.
    var expected: [Bool] = []
    /// The kernel killed something in it for memory.
    var outOfMemory = false
    /// What the kernel says of that itself, for engines that do not tell.
    var memory: OutOfMemoryWatch?
    /// When it was seen to start.
    var startedAt: WallTime?
    /// Its first process, in the host's numbering; 0: not known.
    var pid: Int32 = 0
    /// The process is gone, and no event has said so.
    var hasLostProcess: Bool { pid > 0 && Glibc.kill(pid, 0) != 0 }
    /// The path of the app's group, which it lies below.
    var group = ""
    /// We are taking it away ourselves.
    var removing = false
  }

  private var entries: [String: Entry] = [:]
  private var engine: String?

  /// Which engine answers now; returns the one before.
  func noteEngine(_ summary: String) -> String? {
    defer { engine = summary }
    return engine
  }

  func add(
    _ instance: Instance, _ launch: Launch, _ stage: Stage, paused: Bool = false, memory: OutOfMemoryWatch? = nil
  ) {
    entries[instance.handle] = Entry(
      instance: instance, launch: launch, stage: stage, paused: paused, memory: memory)
  }

  func entry(_ id: String) -> Entry? { entries[id] }

  func drop(_ id: String) { entries[id] = nil }

  func setLaunch(_ id: String, _ launch: Launch) { entries[id]?.launch = launch }

  /// Known containers that may run.
  var living: [Entry] { entries.values.filter { $0.stage == .running } }

  /// Whether another generation of the same app is here that has the same group.
  func hasOther(_ instance: Instance) -> Bool {
    entries.values.contains {
      $0.instance.app == instance.app && $0.instance.ownGroup == instance.ownGroup
        && $0.instance.handle != instance.handle && !$0.removing
    }
  }

  /// False: it is not waiting to be started.
  func beginStart(_ id: String) -> Bool {
    guard entries[id]?.stage == .created else { return false }
    entries[id]?.stage = .starting(ended: false)
    return true
  }

  /// Ends the start well; true: the container has ended meanwhile, which is now to be told.
  func started(_ id: String, _ run: RunFacts, group: String) -> Bool {
    entries[id]?.group = group
    entries[id]?.startedAt = run.startedAt
    entries[id]?.pid = run.pid
    guard case .starting(let ended)? = entries[id]?.stage else { return false }
    entries[id]?.stage = .running
    return ended
  }

  func reject(_ id: String) { entries[id]?.stage = .rejected }

  func beginRemove(_ id: String) { entries[id]?.removing = true }

  /// It has ended: returns it if that is to be told now, and only once.
  func claimEnd(_ id: String) -> Entry? {
    guard let entry = entries[id] else { return nil }
    switch entry.stage {
    case .running:
      entries[id]?.stage = .ended
      return entry
    case .starting:
      entries[id]?.stage = .starting(ended: true)
      return nil
    case .created, .ended, .rejected: return nil
    }
  }

  func noteOutOfMemory(_ id: String) -> Instance? {
    entries[id]?.outOfMemory = true
    return entries[id]?.instance
  }

  /// A pause or resume of our own begins; its event is for nobody.
  func expectPaused(_ id: String, _ paused: Bool) {
    entries[id]?.paused = paused
    entries[id]?.expected.append(paused)
  }

  /// It changed nothing: no event comes. `paused`: how it is.
  func unexpectPaused(_ id: String, _ asked: Bool, paused: Bool) {
    if let place = entries[id]?.expected.lastIndex(of: asked) { entries[id]?.expected.remove(at: place) }
    entries[id]?.paused = paused
  }

  /// An event of a pause or resume; the instance if it was not ours.
  func notePausedEvent(_ id: String, _ paused: Bool) -> Instance? {
    if let place = entries[id]?.expected.firstIndex(of: paused) {
      entries[id]?.expected.remove(at: place)
      return nil
    }
    return notePaused(id, paused)
  }

  /// Events may have been lost: what was expected is compared with the engine's list instead.
  func forgetExpected() { for id in entries.keys { entries[id]?.expected = [] } }

  /// Notes a pause or its end; the instance if that was not known.
  func notePaused(_ id: String, _ paused: Bool) -> Instance? {
    guard let entry = entries[id], entry.paused != paused else { return nil }
    entries[id]?.paused = paused
    return entry.instance
  }
}
