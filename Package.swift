// swift-tools-version: 6.2
import PackageDescription

// Strict everywhere: existentials and imports are explicit, warnings are errors.
let strict: [SwiftSetting] = [
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("MemberImportVisibility"),
  .treatAllWarnings(as: .error),
]

/// A target of this package; every one is compiled with the same strict settings.
func area(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(name: name, dependencies: dependencies, swiftSettings: strict)
}

func program(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .executableTarget(name: name, dependencies: dependencies, swiftSettings: strict)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .testTarget(name: name, dependencies: dependencies, swiftSettings: strict)
}

let package = Package(
  name: "appsupervisor",
  products: [
    .executable(name: "supervisor", targets: ["supervisor"]),
    .executable(name: "supervisor-daemon", targets: ["supervisor-daemon"]),
    .executable(name: "supervisor-shim", targets: ["supervisor-shim"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
    .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
  ],
  targets: [
    // Layers import strictly downward; they stand here from the lowest to the highest.

    // 0: what Swift cannot say, and the values every layer speaks.
    .target(name: "CLinux"),
    .systemLibrary(name: "CCurlSystem", pkgConfig: "libcurl", providers: [.apt(["libcurl4-openssl-dev"])]),
    .target(name: "CCurl", dependencies: ["CCurlSystem"]),
    .systemLibrary(name: "CSeccomp", pkgConfig: "libseccomp", providers: [.apt(["libseccomp-dev"])]),
    .systemLibrary(name: "CArchive", pkgConfig: "libarchive", providers: [.apt(["libarchive-dev"])]),
    .target(name: "CDigest", cSettings: [.unsafeFlags(["-O2"])]),
    area("Model"),

    // 1: the kernel as Swift; policy files, and other formats to and from them; mount tables; scheduling decisions.
    area("Linux", ["CLinux", "Model"]),
    area("Policies", ["Model", .product(name: "Yams", package: "Yams")]),
    area("FileSystems", ["Model", "Linux"]),
    area("Scheduling", ["Model"]),
    area("Converting", ["Model", "Policies"]),

    // 2: cgroups; nftables; the Engine's API; framed JSON-RPC; SQLite; whether an app works; images without an engine.
    area("Cgroups", ["Model", "CLinux", "Linux", "Scheduling"]),
    area("PacketFilter", ["Model", "Linux"]),
    area("EngineAPI", ["Model", "Linux", "CCurl"]),
    area("RPC", ["Model", "Linux"]),
    area("Health", ["Model", "Linux"]),
    area("Storage", ["Model", .product(name: "GRDB", package: "GRDB.swift")]),
    area("ImageStorage", ["Model", "CLinux", "Linux", "CArchive", "CDigest"]),
    area("Telemetry", ["Model", "Linux", .product(name: "CoreMetrics", package: "swift-metrics")]),

    // 3: a policy's sandbox as a launch plan, its filter as a program; apps' networks; what runs, and what happens next.
    area("Sandboxing", ["Model", "Linux", "FileSystems"]),
    area("Seccomp", ["Sandboxing", "CSeccomp"]),
    area("Networking", ["Model", "Linux", "PacketFilter"]),
    area(
      "Supervision",
      [
        "Model", "Linux", "Policies", "Scheduling", "Storage", "Health",
        .product(name: "Logging", package: "swift-log"),
      ]),

    // What apps may ask, and who decides.
    area(
      "Calls",
      ["Model", "Linux", "FileSystems", "RPC", "Storage", .product(name: "Logging", package: "swift-log")]),

    // 4: the runtimes, and the operator's interface with its client.
    area(
      "ContainerHosting",
      [
        "Model", "Linux", "FileSystems", "Scheduling", "Cgroups", "Health", "EngineAPI", "Sandboxing", "Networking",
        "PacketFilter",
      ]),
    area(
      "ProcessHosting",
      [
        "Model", "Linux", "FileSystems", "Scheduling", "Cgroups", "Health", "Sandboxing", "Seccomp", "Networking",
        "ImageStorage",
      ]),
    area("Control", ["Model", "Linux", "Policies", "RPC", "Storage", "Supervision", "Calls"]),
    area("Client", ["Model", "Linux", "CLinux", "RPC"]),

    // 5: thin mains. The daemon's is the only place that names concrete hosts.
    program(
      "supervisor",
      [
        "Model", "Linux", "CLinux", "Policies", "Converting", "Scheduling", "Client", "RPC", "Cgroups",
        "PacketFilter", .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ]),
    program(
      "supervisor-daemon",
      [
        "Model", "Linux", "CLinux", "Policies", "Scheduling", "Cgroups", "EngineAPI", "RPC", "Storage", "Supervision",
        "Networking", "ContainerHosting", "ProcessHosting", "ImageStorage", "Calls", "Control", "Telemetry",
        .product(name: "Logging", package: "swift-log"),
      ]),
    // Fully static: no relocations to make at start and none to keep, which is half of what a shim would hold and wait for.
    .executableTarget(
      name: "supervisor-shim", dependencies: ["Model", "Linux", "Sandboxing"],
      swiftSettings: strict + [.unsafeFlags(["-static-executable"])],
      linkerSettings: [.unsafeFlags(["-static-executable"])]),

    tests("ModelTests", ["Model"]),
    tests("RPCTests", ["Model", "Linux", "RPC"]),
    tests("HealthTests", ["Model", "Linux", "Health"]),
    tests("CallsTests", ["Model", "RPC", "Calls"]),
    tests("StorageTests", ["Model", "Storage"]),
    tests("SupervisionTests", ["Model", "Supervision"]),
    tests("EndToEndTests", ["Model", "ImageStorage"]),
    tests("AdversarialTests", ["Model", "Linux", "FileSystems", "Sandboxing", "Seccomp"]),
    tests("SchedulingTests", ["Model", "Scheduling"]),
    tests("FileSystemsTests", ["Model", "Linux", "FileSystems"]),
    tests(
      "ContainerTests",
      ["Model", "Linux", "FileSystems", "Scheduling", "Cgroups", "EngineAPI", "Sandboxing", "ContainerHosting"]),
    tests("ImageStorageTests", ["Model", "CLinux", "Linux", "ImageStorage"]),
    tests("NetworkingTests", ["Model", "Linux", "PacketFilter", "Networking"]),
    tests("SeccompTests", ["Model", "Sandboxing", "Seccomp"]),
    tests("CgroupsTests", ["Model", "Linux", "Scheduling", "Cgroups"]),
    tests("HostTests", ["Model", "Linux", "Cgroups", "Sandboxing", "ImageStorage", "ProcessHosting"]),
    tests("PoliciesTests", ["Model", "Policies"]),
    tests("TelemetryTests", ["Model", "Linux", "Telemetry"]),
    tests("ControlTests", ["Model", "Linux", "Policies", "Control"]),
    tests("ConvertingTests", ["Model", "Policies", "Converting"]),
    tests("EngineTests", ["Model", "Linux", "EngineAPI"]),
  ]
)
