internal import Model

/// Keys whose feature is not built: known, checked for their shape, and refused with the reason.
let laterFields: [Field] = [
  Field(later: "hosted", "stdin and stdout carry JSON-RPC", .boolean, "apps' calls", harmless: ["false"]),
  Field(
    later: "disk", "How much the app's data may take",
    .object([
      .init("data", .size, "Of /data"), .init("cache", .size, "Of /cache"),
      .init("inodes", .text(most: 32), "Files, as 200k"),
    ]), "disk limits"),
  Field(
    later: "configs", "Configuration as files",
    .list(.either([.objectName, config], said: "a name, or {source, target}")), "configs"),
  Field(later: "provides", "What other apps may use", .list(.text()), "routes between apps"),
  Field(later: "uses", "What the app uses of others", .list(.text()), "routes between apps"),
  Field(
    later: "pipes", "Pipes between apps",
    .map(
      .object([
        .init("from", .appID, "Who writes", required: true), .init("to", .appID, "Who reads", required: true),
        .init("capacity", .size, "Bytes it holds"),
        .init("on_restart", .word(["keep", "eof"]), "What the other end sees"),
      ])), "pipes between apps"),
  Field(
    later: "queues", "Queues between apps",
    .map(
      .object([
        .init("kind", .word(["fifo", "priority"]), "Order"), .init("durable", .boolean, "Outlives a restart"),
        .init("capacity", .whole(1...10_000_000), "Messages"),
        .init("on_full", .word(["block", "reject", "drop-oldest"]), "When it is full"),
      ])), "queues between apps"),
  Field(
    later: "shm", "Memory shared between apps",
    .map(
      .object([
        .init("size", .size, "Bytes", required: true), .init("with", .map(.word(["ro", "rw"])), "Who else sees it"),
      ])), "shared memory between apps"),
  Field(later: "stdio", "What the app's descriptors are", .map(.text(most: 128)), "declared descriptors"),
  Field(
    later: "desktop", "How a desktop shows the app",
    .object([
      .init("title", .text(most: 128), "In the title bar"), .init("icon", .text(most: 128), "Its name"),
      .init(
        "window",
        .object([
          .init("kind", .word(["web", "terminal", "logs", "blueprint"]), "What it shows"),
          .init("port", .whole(1...65535), "Of a web window"),
        ]), "Its window"),
    ]), "the desktop"),
]

private let config = Form.object([
  .init("source", .objectName, "Its name", required: true), .init("target", .text(), "File name, or a path"),
  .init("uid", .text(most: 16), "Owner"), .init("gid", .text(most: 16), "Group"), .init("mode", .mode, "Always octal"),
  .init("file", .path, "Where the value is"), .init("environment", .text(), "Variable that holds it"),
  .init("content", .text(), "The value"),
])
