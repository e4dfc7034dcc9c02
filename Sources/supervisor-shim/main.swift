// supervisor-shim: the parent of one native app, from before its first instruction to after its end.
//
// Owns:   the app's sandbox while it is built, its pipes, log, ports, exit status, and the socket a daemon finds it by.
// Never:  has a second thread (clone and setns need one), decides when something runs, outlives its outcome.
//         It inherits: 0-2 /dev/null, 3 the launch plan in a sealed memfd, 4 the daemon that started it.
// Next:   Shim.swift (its life), Preparation.swift and Child.swift (the launch order, each step with its reason).
internal import Linux
internal import Sandboxing

let daemon = SharedDescriptor(Descriptor(owning: 4))
do {
  let plan = try LaunchPlan(bytes: SealedMemory.read(Descriptor(owning: 3), limit: LaunchPlan.maximumBytes))
  let shim = Shim(plan, daemon: daemon)
  shim.run()
} catch {
  // Without a plan there is nobody to speak for: the daemon sees its socket closed.
  Children.exitNow(1)
}
Children.exitNow(0)
