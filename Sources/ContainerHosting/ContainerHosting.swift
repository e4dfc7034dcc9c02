// ContainerHosting: apps as containers of a Docker or Podman Engine on this host.
//
// Owns:   the recipe (a policy as one container, with nothing left to the engine's defaults), its proof after the start
//         (inspect, cgroup files, /proc), networks of ours, following what happens, taking over what an earlier daemon left.
// Never:  restarts or orders apps (Supervision), trusts an engine's word alone, calls /archive, makes anything privileged.
// Next:   ContainerHost.swift (the protocol), Recipe.swift, Attestation.swift, Following.swift.
