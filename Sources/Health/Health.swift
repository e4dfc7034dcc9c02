// Health: whether an app works, and whether it says that it is ready.
//
// Owns:   when the next check is due and what its outcome means (Monitor.swift), checks over an app's own network
//         (Prober.swift), what apps say by their notify socket (NotifyMessage.swift, NotifySocket.swift) or in their output
//         (LineWatch.swift).
// Never:  decides what becomes of an app. Whatever it reads was written by an app: it is bounded, and waits for nobody for long.
// Next:   Monitor.swift.
