// supervisor-daemon: puts the parts together and runs them. The only place that names concrete hosts.
//
// Owns:   the order of starting (root and lock, configuration, store, hosts, recovery, socket) and of ending; signals.
// Never:  decides about apps.
// Next:   Root.swift, Composition.swift.

internal import CLinux
internal import Glibc
internal import Linux
internal import Logging
internal import Model

LoggingSystem.bootstrap { _ in LogLines() }
let log = Logger(label: "daemon")
signal(SIGPIPE, SIG_IGN)
// A terminal that goes away is no reason to end.
signal(SIGHUP, SIG_IGN)
let flags = Flags.read(CommandLine.arguments, uid: getuid())
// Signals are read from a descriptor; blocked before any thread exists, so that every thread has them blocked.
let interrupts = cl_interrupt_descriptor()
let root = Root(flags.place, Composition.environment)
let composition = await Composition.make(root.folders, flags, log)
await composition.run(interrupts: interrupts)
log.notice("daemon.ended", metadata: ["pid": "\(getpid())"])
