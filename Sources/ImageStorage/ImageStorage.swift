// ImageStorage: container images without an engine: archives of them unpacked into a content-addressed store of the instance.
//
// Owns:   ROOT/state/images: configurations and unpacked layers by SHA-256, names, what is being loaded; reading tar archives through
//         libarchive (ArchiveReader.swift alone), in a process that has given up all rights but those over its own folder.
// Never:  follows a link or a name of an archive out of the folder it unpacks into; makes devices, pipes or setuid files; runs
//         anything of an image.
// Next:   ImageStore.swift (what is there), Unpacking.swift (an archive, from its first byte to its last), LayerWriter.swift.
