// supervisor-shim: the parent of one native app, from before its first instruction to after its end.
//
// Owns:   the app's sandbox while it is built, its pipes, log, ports, exit status, and the socket a daemon finds it by.
// Never:  has a second thread (clone and setns need one), decides when something runs, outlives its outcome.
//         It inherits: 0-2 /dev/null, 3 the daemon that started it. Its arguments name the cgroup it goes on in: the v2 folder
//         (or `-`), then v1 `tasks` files; before them, for an ordinary user, the ids that it may give to apps (`FIRST+COUNT`). Then it waits for its first packet, which carries the launch plan in a sealed memfd:
//         a daemon keeps one of us waiting like this, so that the next start finds a process that is there.
// Next:   Shim.swift (its life), Preparation.swift and Child.swift (the launch order, each step with its reason).
internal import Linux
internal import Sandboxing

let daemon = SharedDescriptor(Descriptor(owning: 3))
do {
  try Quarters.move(CommandLine.arguments.dropFirst())
  guard let file = try Quarters.firstPacket(daemon) else { Children.exitNow(0) }
  Shim(try LaunchPlan(bytes: SealedMemory.read(file, limit: LaunchPlan.maximumBytes)), daemon: daemon).run()
} catch {
  // Without a plan there is nobody to speak for: the daemon sees its socket closed.
  Children.exitNow(1)
}
Children.exitNow(0)
