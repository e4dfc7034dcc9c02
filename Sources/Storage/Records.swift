package import Model

/// An app as the operator wants it: the applied copy.
package struct StoredApp: Sendable, Equatable {
  package enum Want: String, Sendable {
    case running, stopped
    /// To be stopped and forgotten; a daemon that finds it so goes on with that.
    case removed
  }
  package var id: AppID
  package var stack: String
  /// The PATH that `up` was given, absolute; orphans are told by it.
  package var origin: String
  /// The file it came from, for messages.
  package var file: String
  package var folder: String
  /// The canonical document's JSON text: what `Policies` reads back to the same policy.
  package var canonical: String
  package var want: Want
  /// The last generation given out or asked for; only ever grows. An instance of an older one is to be replaced.
  package var generation: UInt64
  /// The app's block of host ids, counted from the range's base; kept as long as its data is.
  package var uidSlot: UInt32
  /// What the image resolved to when the policy was applied; empty until then, and for native apps.
  package var artifact: String

  package init(
    id: AppID, stack: String, origin: String, file: String, folder: String, canonical: String, want: Want,
    generation: UInt64,
    uidSlot: UInt32, artifact: String
  ) {
    self.id = id
    self.stack = stack
    self.origin = origin
    self.file = file
    self.folder = folder
    self.canonical = canonical
    self.want = want
    self.generation = generation
    self.uidSlot = uidSlot
    self.artifact = artifact
  }
}

/// One key of a policy that an operator set beside its file.
package struct StoredOverride: Sendable, Equatable {
  /// The canonical key.
  package var key: String
  /// Its value as JSON text.
  package var value: String
  /// When it ends by itself; nil: when it is taken back.
  package var until: WallTime?

  package init(key: String, value: String, until: WallTime? = nil) {
    self.key = key
    self.value = value
    self.until = until
  }
}

/// One generation that exists at a host, or may: written before it is created.
package struct StoredInstance: Sendable, Equatable {
  package var instance: Instance
  package var runtime: Runtime
  /// The canonical document it was made from; the applied copy may be newer.
  package var canonical: String
  package var folder: String
  package var artifact: String
  /// Which engine holds it (its socket); empty for native.
  package var engine: String
  /// Which command of `pre_start` it runs; nil: the app's program.
  package var preStart: Int?
  /// It has counted as ready.
  package var isReady: Bool
  /// What it is to its app. Written with its first row; afterwards only `seatInstances` changes it.
  package var seat: Seat

  /// What a generation is to its app.
  package enum Seat: String, Sendable {
    /// The one that the app is.
    case present
    /// It is to take the present one's place.
    case next
    /// Its place was taken, or it will not get one: it is being ended.
    case past
  }
  /// An operator's command runs in it; nil: the app itself.
  package var debug: Debug?

  package enum Debug: Int, Sendable {
    /// Afterwards the app goes on as it is wanted.
    case goesOn = 1
    /// It had come to rest before, and does again.
    case rests
  }

  package init(
    instance: Instance, runtime: Runtime, canonical: String, folder: String, artifact: String, engine: String = "",
    preStart: Int? = nil, isReady: Bool = false, debug: Debug? = nil, seat: Seat = .present
  ) {
    self.seat = seat
    self.preStart = preStart
    self.debug = debug
    self.isReady = isReady
    self.instance = instance
    self.runtime = runtime
    self.canonical = canonical
    self.folder = folder
    self.artifact = artifact
    self.engine = engine
  }
}

/// An update that is not decided yet: the policy that is not the applied one.
package struct StoredUpdate: Sendable, Equatable {
  package enum Role: String, Sendable {
    /// What the app is to become (`start-first`).
    case next
    /// What the app was (`stop-first`).
    case previous
  }
  package var role: Role
  package var app: StoredApp

  package init(role: Role, app: StoredApp) {
    self.role = role
    self.app = app
  }
}

/// How an app rests: its last exit, restarts so far, and why it is not tried again.
package struct StoredRest: Sendable, Equatable {
  package var app: AppID
  package var exit: ExitReport?
  /// Why it is `failed`; nil: it is not.
  package var failure: String?
  package var restarts: UInt32
  /// Which generation `exit` and `failure` are about: once a later one is asked for, they decide nothing any more.
  package var generation: UInt64

  package init(app: AppID, exit: ExitReport?, failure: String?, restarts: UInt32, generation: UInt64 = 0) {
    self.app = app
    self.exit = exit
    self.failure = failure
    self.restarts = restarts
    self.generation = generation
  }
}

/// A decision about one permission of an app, beside what its policy says.
package struct StoredDecision: Sendable, Equatable {
  package enum Kind: String, Sendable {
    /// Its operator granted it.
    case granted
    /// Its operator took it away, whatever its policy says.
    case revoked
    /// The instance `generation` gave it up.
    case dropped
    /// Its operator granted it to the instance `generation` alone.
    case session

    /// It ends with the instance it is about.
    package var isOfOne: Bool { self == .dropped || self == .session }
  }
  package var app: AppID
  /// As `Permission` writes it.
  package var permission: String
  package var kind: Kind
  /// 0: of all instances.
  package var generation: UInt64

  package init(app: AppID, permission: String, kind: Kind, generation: UInt64 = 0) {
    self.app = app
    self.permission = permission
    self.kind = kind
    self.generation = generation
  }
}

/// One call of an app that was judged.
package struct StoredAudit: Sendable, Equatable {
  package var time: WallTime
  package var app: AppID
  package var generation: UInt64
  package var call: String
  package var object: String?
  package var permission: String
  /// What allowed or denied it; nil: nothing grants it.
  package var rule: String?
  package var allowed: Bool
  /// How many more like it were not written, since the last.
  package var more: Int64

  package init(
    time: WallTime, app: AppID, generation: UInt64, call: String, object: String?, permission: String, rule: String?,
    allowed: Bool, more: Int64 = 0
  ) {
    self.time = time
    self.app = app
    self.generation = generation
    self.call = call
    self.object = object
    self.permission = permission
    self.rule = rule
    self.allowed = allowed
    self.more = more
  }
}

/// One thing to write. All that is handed over together is written together.
package enum StorageChange: Sendable {
  case putApp(StoredApp)
  /// Nothing but a mark, to have something to wait for.
  case mark
  /// Changes the wish alone, and the generation unless it is higher already.
  case setWant(AppID, StoredApp.Want, generation: UInt64)
  /// Changes the generation alone, unless it is higher already.
  case setGeneration(AppID, UInt64)
  case setArtifact(AppID, String)
  /// All of an app's overrides, in place of those there were.
  case setOverrides(AppID, [StoredOverride])
  /// The instance of this generation runs by another policy now.
  case setInstancePolicy(AppID, generation: UInt64, canonical: String)
  /// With its instance and its rest; not with its ids.
  case removeApp(AppID)
  /// In place of an earlier row of the same generation, whose seat it keeps.
  case putInstance(StoredInstance)
  case removeInstance(AppID, generation: UInt64)
  /// The app's instance of `present`, if there is one, is the present one, and all others are past.
  case seatInstances(AppID, present: UInt64?)
  case putUpdate(StoredUpdate)
  case removeUpdate(AppID, StoredUpdate.Role)
  /// The app's instance of this generation counts as ready.
  case setReady(AppID, generation: UInt64)
  case putRest(StoredRest)
  case addEvent(Event)
  /// Older ones beyond `kept` go.
  case putExit(ExitRecord)
  case setExitOutput(AppID, run: UInt64, String)
  /// When the next run of its schedule is due; nil: it has none.
  case setDue(AppID, WallTime?)
  /// What an app's operator, or the app itself, decided about a permission beside its policy; in place of an earlier decision.
  case putDecision(StoredDecision)
  case removeDecision(AppID, permission: String)
  /// What was decided for one instance goes with it.
  case removeDropped(AppID, generation: UInt64)
  case addAudit(StoredAudit)
  /// The run that launched the app, in words of who asks for it; nil: none did.
  case setParent(AppID, String?)
  /// Gives back an app's id range: its data is gone, and so is what it kept in its store.
  case releaseIDs(AppID)
}

/// Everything a daemon starts from.
package struct StorageSnapshot: Sendable {
  package var apps: [StoredApp] = []
  package var instances: [StoredInstance] = []
  package var rests: [StoredRest] = []
  package var updates: [StoredUpdate] = []
  /// The highest generation that is known to have run.
  package var lastRuns: [AppID: UInt64] = [:]
  package var overrides: [AppID: [StoredOverride]] = [:]
  package var decisions: [StoredDecision] = []
  package var parents: [AppID: String] = [:]
  /// Id ranges of apps whose data is kept though the app is gone.
  package var idSlots: [AppID: UInt32] = [:]
  package var lastCursor: Int64 = 0
  package var values: [String: String] = [:]
}

/// Why the database cannot be used.
package enum StorageFailure: Error, Sendable, CustomStringConvertible {
  case cannotOpen(path: String, why: String)
  case newer(path: String)
  case damaged(path: String, why: String)
  case failed(String)

  package var description: String {
    switch self {
    case .cannotOpen(let path, let why): "the state database \(path) cannot be opened: \(why)"
    case .newer(let path):
      "the state database \(path) was written by a newer version; install that version again, or use another root"
    case .damaged(let path, let why):
      "the state database \(path) is damaged (\(why)); apps are left as they are. Restore it from a copy, or move it away to start anew"
    case .failed(let why): "the state could not be written: \(why)"
    }
  }
}
