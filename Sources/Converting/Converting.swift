// Converting: other formats' files → policies, and policies → other formats' files, each with a report of what is lost.
//
// Owns:   reading Compose files (ComposeImport.swift), writing Compose, Quadlet and Kubernetes (…Export.swift), the remarks on it.
// Never:  opens a file or asks an engine: bytes and facts in, texts and remarks out. Whether a value can stand in a policy is
//         judged by Policies alone: what its reader refuses is dropped with its reason, so a key that becomes supported is taken.
// Next:   ComposeImport.swift, ServiceImport.swift; Export.swift.
