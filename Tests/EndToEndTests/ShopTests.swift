import Foundation
import Model
import Testing

/// `policies/examples/shop` as an operator would run it: PostgreSQL, Redis and nginx as their images are, our worker, a job by the clock.
@Suite(
  "the shop", .serialized, .enabled(if: !Rig.available.isEmpty, "no SUPERVISOR_TEST_*_SOCK is set"),
  .enabled(if: Shop.hasImages, "images/public/build has made no images")) struct ShopTests
{
  @Test(
    "through boot, crash, reload, upgrade, a failed upgrade and its rollback, down and up, the data is intact",
    arguments: Rig.available)
  func life(_ rig: Rig) throws {
    try Shop.with(rig) { shop in
      let instance = shop.instance
      try shop.up()
      #expect(shop.page().contains("The shop is open"))
      // The job by the clock may have made the table already.
      shop.sql("create table if not exists orders (id bigint); insert into orders select generate_series(1, 1000)")
      #expect(shop.exec("shop-cache", "redis-cli", "set", "cart", "full").out.contains("OK"))
      #expect(shop.order(["shop-db", "shop-cache"], before: "shop-worker"))

      // The job, now and not at the next minute.
      #expect(instance.run("start", "shop-report").code == 0)
      #expect(eventually("the job has run", seconds: 30) { shop.sql("select max(orders) from reports") == "1000" })

      // Crash: the database is killed; who depends on it with `restart` comes again after it.
      let worker = instance.app("shop-worker")?["started_at"]
      #expect(instance.run("kill", "shop-db").code == 0)
      #expect(instance.wait("shop-db", seconds: 40) { $0["restarts"] == 1 && $0["health"] == "healthy" } != nil)
      #expect(
        instance.wait("shop-worker", seconds: 40) { $0["state"] == "running" && $0["started_at"] != worker } != nil)
      #expect(shop.sql("select count(*) from orders") == "1000")

      // Boot: nothing of it runs, no daemon either; then a daemon starts.
      instance.killDaemon()
      for container in rig.containers(of: try #require(shop.id)) {
        let id = container["Id"]?.stringValue ?? ""
        Shell.run([
          "curl", "-s", "-X", "POST", "--unix-socket", rig.socket ?? "", "http://engine/v1.41/containers/\(id)/kill",
        ])
      }
      instance.startDaemon()
      try shop.awaitAll()
      #expect(shop.sql("select count(*) from orders") == "1000")

      // Reload: one limit in one file; nothing else is touched.
      let database = instance.app("shop-db")?["pid"]
      try shop.edit("worker", "cpus: 0.5", "cpus: 0.25")
      try shop.up()
      #expect(instance.app("shop-db")?["pid"] == database)
      let asked = instance.run("config", "--applied", "shop-worker")
      #expect(asked.out.contains("cpus: 0.25"), "\(asked.out)\(asked.err)")

      // Upgrade, one that cannot start, and back.
      try shop.image("appsup/nginx:next", "FROM appsup/nginx:1\nLABEL version=next\n")
      try shop.image("appsup/nginx:broken", "FROM appsup/nginx:1\nENTRYPOINT [\"/bin/false\"]\n")
      let old = instance.app("shop-web")?["container_id"]
      try shop.edit("web", "appsup/nginx:1", "appsup/nginx:next")
      try shop.up()
      #expect(instance.app("shop-web")?["container_id"] != old && shop.page().contains("open"))
      try shop.edit("web", "appsup/nginx:next", "appsup/nginx:broken")
      let failed = instance.run("up", "-d", "--wait", "--wait-timeout", "6s", shop.folder)
      #expect(failed.code != 0 && failed.err.contains("shop-web"), "\(failed.code) \(failed.err)")
      try shop.edit("web", "appsup/nginx:broken", "appsup/nginx:next")
      try shop.up()
      #expect(shop.page().contains("open"))

      // Down keeps the data, and up finds it.
      let down = instance.run("down", shop.folder)
      #expect(down.code == 0, "\(down.err)")
      #expect(rig.containers(of: try #require(shop.id)).isEmpty)
      try shop.up()
      #expect(shop.sql("select count(*), sum(id) from orders") == "1000|500500")
      #expect(shop.exec("shop-cache", "redis-cli", "get", "cart").out.contains("full"))
    }
  }

  @Test(
    "a Compose file from real life is imported and runs: application, database, cache and proxy, in order",
    arguments: Rig.available)
  func imported(_ rig: Rig) throws {
    try Shop.with(rig) { shop in
      let instance = shop.instance
      let project = "\(instance.policies)/blog"
      try FileManager.default.copyItem(atPath: "\(Instance.sources)/policies/compose/blog", toPath: project)
      for name in ["web", "worker"] {
        try FileManager.default.copyItem(
          atPath: "\(Instance.sources)/.build/images/\(name)/\(name)", toPath: "\(project)/app/\(name)")
      }
      try "DB_PASSWORD=from-dot-env\nHTTP_PORT=\(shop.port)\n".write(
        toFile: "\(project)/.env", atomically: true, encoding: .utf8)
      let run = instance.run("import", "-o", "\(project)/policies", "\(project)/compose.yaml")
      #expect(run.code == 0, "\(run.err)")
      #expect(!run.err.contains("db: image: no engine says"), "the images' configs were asked for\n\(run.err)")
      let db = try String(contentsOfFile: "\(project)/policies/db.yaml", encoding: .utf8)
      #expect(db.contains("stop_signal: SIGINT") && db.contains("pg_isready"), "\(db)")
      let up = instance.run("up", "-d", "--wait", "--wait-timeout", "120s", "\(project)/policies", within: 180)
      #expect(up.code == 0, "\(up.err)")
      // The proxy has no healthcheck: it may listen a moment after it was started.
      #expect(
        eventually("nginx passes on to the application") {
          Shell.run(["curl", "-s", "--max-time", "5", "http://127.0.0.1:\(shop.port)/"]).out.contains("It works")
        })
      let robots = Shell.run(["curl", "-s", "--max-time", "10", "http://127.0.0.1:\(shop.port)/robots.txt"]).out
      #expect(robots.contains("Disallow: /admin"))
      let posts = shop.exec("db", "psql", "-U", "blog", "-tAc", "select count(*) from posts")
      #expect(posts.out.contains("2"), "\(posts.err)")
      #expect(shop.order(["db"], before: "app") && shop.order(["app"], before: "proxy"))
      #expect(instance.app("mail") == nil && instance.app("backup") == nil, "profiles that nobody chose")
    }
  }
}

/// A copy of the sample, an instance and its engine.
private final class Shop {
  static let archives = "\(Instance.sources)/.build/images/public"
  static let hasImages = ["postgres", "redis", "nginx"].allSatisfy {
    FileManager.default.fileExists(atPath: "\(archives)/\($0).tar")
  }

  let instance: Instance
  let folder: String
  let port: Int
  private(set) var id: String?

  static func with(_ rig: Rig, _ body: (Shop) throws -> Void) throws {
    let port = Int.random(in: 20000...29000)
    let instance = try Instance(engine: try #require(rig.socket), ["SHOP_PORT": "\(port)"])
    defer { instance.end() }
    try body(Shop(instance, rig, port))
  }

  private init(_ instance: Instance, _ rig: Rig, _ port: Int) throws {
    self.instance = instance
    self.port = port
    folder = "\(instance.policies)/shop"
    try FileManager.default.createDirectory(atPath: "\(instance.root)/config", withIntermediateDirectories: true)
    try "unsafe_host_uids: [app]\n".write(
      toFile: "\(instance.root)/config/config.yaml", atomically: true, encoding: .utf8)
    try FileManager.default.copyItem(atPath: "\(Instance.sources)/policies/examples/shop", toPath: folder)
    instance.startDaemon()
    id = instance.id
    // Once an engine: the archives are large.
    for name in ["postgres", "redis", "nginx"] where rig.ask("/images/json")?.text.contains("appsup/\(name):") != true {
      let load = instance.run(["load", "\(Self.archives)/\(name).tar"], within: 180)
      #expect(load.code == 0, "\(load.err)")
    }
    let worker = instance.run("build", "-t", "appsup/worker:1", "\(Instance.sources)/.build/images/worker")
    #expect(worker.code == 0, "\(worker.err)")
  }

  func up() throws {
    let up = instance.run("up", "-d", "--wait", "--wait-timeout", "120s", folder, within: 180)
    #expect(up.code == 0, "\(up.err)")
    try awaitAll()
  }

  func awaitAll() throws {
    for name in ["shop-db", "shop-cache", "shop-web"] {
      try #require(instance.wait(name, seconds: 60) { $0["health"] == "healthy" } != nil)
    }
    try #require(instance.wait("shop-worker", seconds: 60) { $0["state"] == "running" } != nil)
  }

  func page() -> String { Shell.run(["curl", "-s", "--max-time", "10", "http://127.0.0.1:\(port)/"]).out }

  /// What follows the app is the command's, so the instance is named before it.
  func exec(_ words: String...) -> Outcome {
    Shell.run(["\(Instance.programs)/supervisor", "exec", "--root", instance.root] + words, within: 60)
  }

  @discardableResult
  func sql(_ text: String) -> String {
    let run = exec("shop-db", "psql", "-U", "shop", "-v", "ON_ERROR_STOP=1", "-tAc", text)
    return run.out.trimmingCharacters(in: .whitespacesAndNewlines) + run.err
  }

  func edit(_ file: String, _ old: String, _ new: String) throws {
    let path = "\(folder)/\(file).yaml"
    let text = try String(contentsOfFile: path, encoding: .utf8)
    try #require(text.contains(old))
    try text.replacingOccurrences(of: old, with: new).write(toFile: path, atomically: true, encoding: .utf8)
  }

  func image(_ tag: String, _ dockerfile: String) throws {
    let context = "\(instance.root)-context"
    defer { try? FileManager.default.removeItem(atPath: context) }
    try FileManager.default.createDirectory(atPath: context, withIntermediateDirectories: true)
    try dockerfile.write(toFile: "\(context)/Dockerfile", atomically: true, encoding: .utf8)
    let build = instance.run("build", "-t", tag, context)
    #expect(build.code == 0, "\(build.err)")
  }

  /// Whether all of `first` were healthy before `last` was started, the last time each was.
  func order(_ first: [String], before last: String) -> Bool {
    let events = instance.run("events", "--format", "json").lines
    func cursor(_ app: String, _ names: Set<String>) -> Int64? {
      events.last { $0["app"]?.stringValue == app && names.contains($0["event"]?.stringValue ?? "") }?["cursor"]?
        .integerValue
    }
    guard let started = cursor(last, ["app.started"]) else { return false }
    return first.allSatisfy { app in
      cursor(app, ["app.healthy", "app.ready", "app.started"]).map { $0 < started } ?? false
    }
  }
}
