// Calls: what an app may ask of the supervisor, and who decides.
//
// Owns:   the table of calls (CallTable.swift lists them all), the one place where a right is checked (Caller.require), and the socket
//         of each instance.
// Never:  takes an app's word for who it is: a connection belongs to the app whose socket it came by, if the kernel shows the peer in
//         that app's cgroup. Nothing in a call names the caller.
// Next:   AppInterface.swift (sockets), CallTable.swift (the table), Caller.swift (rights of one instance), RightSet.swift (the check),
//         FileWork.swift (how work on files is done in an app's name).
