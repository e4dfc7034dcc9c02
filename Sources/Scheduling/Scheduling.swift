// Scheduling: decisions as pure functions.
//
// Owns:   CPU weights from priorities and shares, admission by memory. Later: round robin and pressure.
// Never:  reads a clock or a file, writes a cgroup (Cgroups), starts anything (Supervision).
// Next:   Weights.swift, Admission.swift.
