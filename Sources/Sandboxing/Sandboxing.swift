// Sandboxing: what a policy means for a native app, as values: the plan a shim follows and how both talk.
//
// Owns:   LaunchPlan and its binary form (daemon to shim, in a sealed memfd), the packets between a daemon and a shim,
//         the record of how a run ended, the layout of log files, capabilities by name, the system call filter.
// Never:  starts, mounts or changes anything (supervisor-shim does), or decides when something runs. The shim links it,
//         so no Foundation.
// Next:   LaunchPlan.swift, PlanBuilder.swift (a policy becomes a plan), ShimPackets.swift, LogFormat.swift.
