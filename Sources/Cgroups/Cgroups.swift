// Cgroups: one subtree of the kernel's control groups per app, the same through v2, v1 and the mixed layout.
//
// Owns:   finding which controller lives where; an app's parent group (limits, freeze, kill, usage, out-of-memory
//         count, read-back) and the instance's group for shims; the names of all of them.
// Never:  decides what a limit is, talks to the Engine, touches a group it was not told to make.
//         Kernel files are small and answer at once, so calls block; those that wait say so.
// Next:   CgroupHierarchy.swift (detection), AppCgroup.swift, CgroupLimits.swift (each limit as a table).
