// Client: the operator's side of the control socket.
//
// Owns:   finding an instance's socket, starting a daemon where none answers, and calling it (RPC's blocking client).
// Never:  prints, parses arguments or policies (the CLI does).
// Next:   Daemon.swift.
