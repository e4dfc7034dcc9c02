// Supervision: what runs, and what happens next.
//
// Owns:   each app's life (one pure function in Life.swift), the gates between them (dependencies, admission), the applied copies,
//         recovery after the daemon's own end, and the history of events.
// Never:  names a concrete runtime: it sees AppHost. Reads no policy file: it is handed checked policies.
// Next:   Life.swift (states × events; LifeUp, LifeDown, LifeEnd, LifeAgain), Update.swift (old and new beside each other),
//         Supervisor.swift (the actor that carries out effects), Recovery.swift.
