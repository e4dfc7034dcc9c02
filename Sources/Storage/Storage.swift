// Storage: what must outlive the daemon, in SQLite (WAL) through GRDB.
//
// Owns:   the schema and its versions; desired state (the applied copy of each policy), the live instance of each app, how its
//         last run ended, id ranges, and the history of events. Writes of many apps share one commit.
// Never:  decides. A database that cannot be read stops the daemon with a clear text; nothing is deleted to go on.
// Next:   Records.swift (what is kept), Store.swift (how).
