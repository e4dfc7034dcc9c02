// FileSystems: what an app sees as files, the same under every runtime.
//
// Owns:   MountTable: a policy's mounts as one ordered, checked table; making the folders behind volumes and an app's
//         own data. Later: the other backends (overlay, archive, shared).
// Never:  mounts anything (the shim and the Engine do), follows a link, resolves a path an app could have made.
// Next:   MountTable.swift, MountSources.swift.
