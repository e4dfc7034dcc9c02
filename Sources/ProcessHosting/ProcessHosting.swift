// ProcessHosting: native apps as an AppHost: sandboxed processes, each under a shim of its own.
//
// Owns:   NativeHost (make, start, attest, stop, take over), the connection to each shim, reading native logs.
// Never:  clones or mounts (supervisor-shim does), decides when an app runs (Supervision), or believes a process number:
//         an app is known by its shim's nonce, and signalled through it.
// Next:   NativeHost.swift, NativeControl.swift, ShimConnection.swift, Attestation.swift, LogReader.swift.
