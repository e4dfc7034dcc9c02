// RPC: JSON-RPC 2.0 over Unix sockets, both ends.
//
// Owns:   framing (Content-Length headers or one object a line), limits before parsing, requests answered out of order,
//         cancellation, streams of items with back pressure, and who the peer is (from the kernel).
// Never:  knows a method's meaning: what is served is an RPCService (Control for operators).
// Next:   Framing.swift (bytes to frames), Message.swift (frames to calls), RPCServer.swift, RPCClient.swift.
