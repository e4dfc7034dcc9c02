// EngineAPI: the Docker Engine's HTTP API, as Docker and Podman answer it over a Unix socket.
//
// Owns:   the connection pool (libcurl's multi interface on one EventLoop), version negotiation, typed requests and answers,
//         streams with back pressure (logs, events, stats, progress, attach, exec), and the one list of engine differences.
// Never:  knows our apps, reads a policy, retries on its own, or says a password, an environment value or a header in an error.
// Use:    let engine = try await Engine.connect(to: endpoint, on: loop)
//         let id = try await engine.createContainer(spec, named: "x").id; try await engine.startContainer(id)
//         for try await chunk in try await engine.containerLogs(id, LogsQuery(follow: true)) { … }
//         Leaving the loop, dropping the stream or cancelling the task ends the transfer.
// Next:   Engine.swift (connect), Transport.swift (how a call is made), Streams.swift, Containers.swift, Differences.swift.
