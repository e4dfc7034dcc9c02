// Model: the values all layers speak.
//
// Owns:   AppID, sizes and durations as people write them, the effective Policy, AppState's words, Event,
//         ExitReport, JSONValue, and the protocol AppHost that every runtime implements.
// Never:  does I/O, imports Foundation, or knows a file's syntax (Policies), a kernel file (Cgroups) or the
//         Engine (EngineAPI).
// Next:   Policy.swift (what an app asks for), AppHost.swift (what a runtime must do), then Supervision.
