// FileSystems: what an app sees as files, the same under every runtime.
//
// Owns:   MountTable: a policy's mounts as one ordered, checked table; making the folders behind volumes and an app's
//         own data; work on an app's files in its name, with its ids. Later: the other backends (overlay, archive, shared).
// Never:  mounts anything (the shim and the Engine do); follows a link to prepare a source; resolves a path of an app's but below the
//         root of that app's own mount, and then once.
// Next:   MountTable.swift, MountSources.swift; AppView.swift and AppFiles.swift for calls of apps.
