// Linux: the kernel's interface as Swift values.
//
// Owns:   descriptors with one owner, errno as errors (only here), Unix sockets with passed descriptors, files reached from a
//         pinned folder, the event loop, and what the sandbox is made of (namespaces, mounts, pidfds).
// Never:  decides anything, imports Foundation, knows what an app is. The shim is built on it, so nothing here starts a
//         thread unless an EventLoop is asked for.
// Next:   SystemFault.swift (how each call is made), Descriptor.swift, EventLoop.swift.
