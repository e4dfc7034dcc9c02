// supervisor-daemon: puts the parts together and runs them. The only place that names concrete hosts.
//
// Owns:   the order of starting (root and lock, configuration, store, hosts, recovery, socket) and of ending; signals.
// Never:  decides about apps.
// Next:   Root.swift, Composition.swift.

internal import CLinux
internal import Glibc
internal import ImageStorage
internal import Linux
internal import Logging
internal import Model

// Before anything else exists: the process that unpacks an image has one thread and nothing to lose.
if CommandLine.arguments.dropFirst().first == UnpackProcess.argument { UnpackProcess.run() }
LoggingSystem.bootstrap { _ in LogLines() }
let log = Logger(label: "daemon")
signal(SIGPIPE, SIG_IGN)
// A shell's 1024 would be used up by fewer clients than the control socket takes.
Privileges.raiseOpenFiles(to: 65_536)
let flags = Flags.read(CommandLine.arguments, uid: getuid())
// Signals are read from a descriptor; blocked before any thread exists, so that every thread has them blocked.
// SIGHUP among them: a terminal that goes away is no reason to end.
let interrupts = cl_daemon_descriptor()
// On a thread of the pool, and not awaited here: the loop that would wait here unblocks every signal on this thread, and the next
// SIGTERM would end the process at once.
Task.detached {
  let root = Root(flags.place, Composition.environment)
  let composition = await Composition.make(root.folders, flags, log)
  await composition.run(interrupts: interrupts)
  // The root holds its lock until this is said.
  log.notice("daemon.ended", metadata: ["pid": "\(getpid())", "state": "\(root.folders.state)"])
  exit(0)
}
while true { pause() }
