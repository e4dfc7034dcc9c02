import Model
import Policies
import Testing

@testable import Converting

/// Imports one Compose text from `/srv/shop` into `/srv/shop/policies`.
func imported(
  _ yaml: String, environment: [String: String] = ["HOME": "/home/a"], images: [String: ImageFacts] = [:],
  prefix: String = ""
) -> Import {
  var source = ComposeSource(
    path: "compose.yaml", folder: "/srv/shop", outFolder: "/srv/shop/policies", bytes: Array(yaml.utf8),
    environment: environment)
  source.images = images
  source.prefix = prefix
  return importCompose(source)
}

/// The policies of an import, read back from their files as `up` would.
func policies(of result: Import) -> [String: Policy] {
  var policies: [String: Policy] = [:]
  for file in result.files where file.name.hasSuffix(".yaml") {
    var source = PolicySource(path: file.name, folder: "/srv/shop/policies", bytes: Array(file.text.utf8))
    for (path, _) in envFilesNamed(in: source.bytes) { source.envFiles[path] = [] }
    let reading = read(source)
    #expect(reading.errors.isEmpty, "\(reading.rendered())\n\(file.text)")
    if let policy = reading.policy { policies[policy.id.name] = policy }
  }
  return policies
}

func losses(_ result: Import) -> [String] {
  result.remarks.filter(\.isLoss).map { "\($0.line) \($0.app) \($0.key)" }
}

@Suite("A Compose file as policies") struct ImportTests {
  @Test("what Compose's silence means is written down: the image's user, capabilities it needs, a writable root")
  func silence() throws {
    let web = try #require(policies(of: imported("services: {web: {image: nginx:1}}"))["web"])
    #expect(web.stack == "shop")
    #expect(web.user == .image)
    #expect(!web.readOnlyRoot)
    #expect(web.capabilities.add.contains("SETUID"))
    #expect(web.capabilities.drop == ["ALL"])
    #expect(web.network.mode == .bridge)
  }

  @Test("an image whose config names a user gets no capability, its data a volume, its stop signal a line")
  func imageFacts() throws {
    let facts = ImageFacts(user: "999:999", volumes: ["/var/lib/db"], stopSignal: "SIGINT")
    let result = imported("services: {db: {image: pg}}", images: ["pg": facts])
    let db = try #require(policies(of: result)["db"])
    #expect(db.capabilities.add.isEmpty)
    #expect(db.stopSignal == 2)
    #expect(
      db.mounts.contains {
        $0.target == "/var/lib/db" && $0.kind == .volume(name: "shop_db-var-lib-db", external: false)
      })
    #expect(losses(result).isEmpty)
  }

  @Test(
    "variables are replaced as Compose does: $VAR, ${VAR:-x}, empty where not set, which is told by name, never by value"
  )
  func variables() throws {
    let result = imported(
      "services:\n  a:\n    image: i:${TAG:-2}\n    environment: {P: $PASS, Q: '${NONE}', R: 'a$$b'}\n",
      environment: ["PASS": "se$cret"])
    let a = try #require(policies(of: result)["a"])
    #expect(a.image?.reference == "i:2")
    #expect(a.environment.map(\.value) == ["se$cret", "", "a$b"])
    #expect(result.remarks.contains { $0.reason.contains("NONE") && $0.kind == .changed })
    #expect(!result.remarks.contains { $0.reason.contains("se$cret") })
    #expect(!result.files.contains { !$0.isPrivate })
  }

  @Test("short and long forms of ports, volumes, depends_on and env_file are taken, relative to where the policies go")
  func forms() throws {
    let result = imported(
      """
      services:
        a:
          image: i
          ports: ["80", "8080:80", "127.0.0.1:9000:90/udp", {target: 443, published: 8443}]
          volumes:
            - data:/data
            - ./conf:/conf:ro
            - ~/x:/x
            - type: bind
              source: ../up
              target: /up
              bind: {create_host_path: true}
            - /anonymous
            - {type: tmpfs, target: /fast, tmpfs: {size: 16m}}
          env_file: [a.env, {path: b.env, required: false}]
          depends_on: {b: {condition: service_started}}
        b: {image: i, depends_on: [c]}
        c: {image: i}
      volumes: {data: {}}
      """)
    let a = try #require(policies(of: result)["a"])
    #expect(a.network.ports.map(\.hostAddress) == ["0.0.0.0", "0.0.0.0", "127.0.0.1", "0.0.0.0"])
    #expect(a.network.ports.map(\.hostPort) == [0, 8080, 9000, 8443])
    let sources = a.mounts.filter { $0.target != "/tmp" }.map { "\($0.kind)" }
    #expect(sources.contains { $0.contains("\"shop_data\"") })
    #expect(sources.contains { $0.contains("\"/srv/shop/conf\"") })
    #expect(sources.contains { $0.contains("\"/home/a/x\"") })
    #expect(sources.contains { $0.contains("\"/srv/up\"") })
    #expect(sources.contains { $0.contains("\"shop_a-anonymous\"") })
    #expect(a.mounts.contains { $0.kind == .memory(size: .mebibytes(16), mode: nil) })
    #expect(losses(result) == ["12 a volumes.bind.create_host_path"])
  }

  @Test("services that share a network keep it, with their names; one alone on a network has a network of its own")
  func networks() throws {
    let all = policies(
      of: imported(
        """
        services:
          web.front: {image: i, container_name: shop-web, networks: [front, back]}
          db: {image: i, networks: {back: {aliases: [postgres]}}}
          lone: {image: i, networks: [alone]}
          none: {image: i, network_mode: none}
          other: {image: i, networks: [outside]}
        networks: {front: {}, back: {name: backbone}, alone: {}, outside: {external: true, name: lan}}
        """))
    #expect(all["web-front"]?.network.attachments.map(\.network) == ["shop_front", "backbone"])
    #expect(all["web-front"]?.network.attachments.last?.aliases == ["web.front", "shop-web"])
    #expect(all["db"]?.network.attachments.map(\.aliases) == [["postgres"]])
    #expect(all["lone"]?.network.mode == .bridge)
    #expect(all["none"]?.network.mode == Network.Mode.none)
    #expect(all["other"]?.network.attachments.map(\.network) == ["lan"])
  }

  @Test("deploy's limits and restart policy become a policy's")
  func deploy() throws {
    let result = imported(
      """
      services:
        a:
          image: i
          deploy:
            replicas: 3
            resources:
              limits: {cpus: '0.5', memory: 256M, pids: 50}
              reservations: {memory: 64M, cpus: '0.1'}
            restart_policy: {condition: on-failure, delay: 5s, max_attempts: 4}
            placement: {constraints: [node.role == manager]}
      """)
    let a = try #require(policies(of: result)["a"])
    #expect(a.limits.cpus == 0.5)
    #expect(a.limits.memory == .mebibytes(256))
    #expect(a.limits.memoryReservation == .mebibytes(64))
    #expect(a.limits.pids == 50)
    #expect(a.restart == .onFailure(maximum: 4))
    #expect(a.backoff.delay == .seconds(5))
    #expect(
      losses(result) == [
        "5 a deploy.replicas", "8 a deploy.resources.reservations.cpus", "10 a deploy.placement",
      ])
  }

  @Test("deploy's update rule becomes a policy's; start-first is left to who knows that nothing is shared")
  func update() throws {
    let result = imported(
      """
      services:
        a:
          image: i
          ports: ['80:80']
          deploy:
            update_config: {order: start-first, failure_action: rollback, monitor: 10s, parallelism: 2}
      """)
    let a = try #require(policies(of: result)["a"])
    #expect(a.update.order == .stopFirst && a.update.failureAction == .rollback && a.update.monitor == .seconds(10))
    #expect(losses(result) == ["6 a deploy.update_config.order", "6 a deploy.update_config.parallelism"])
  }

  @Test("secrets and configs that are files become read-only mounts; inline content becomes a file")
  func secrets() throws {
    let result = imported(
      """
      services:
        a:
          image: i
          secrets: [key, {source: key, target: /etc/key, mode: 0400}, env]
          configs: [{source: text, target: /etc/a.conf}]
      secrets: {key: {file: ./key.txt}, env: {environment: X}}
      configs: {text: {content: "a=1\\n"}}
      """)
    let a = try #require(policies(of: result)["a"])
    #expect(
      a.mounts.contains(Mount(target: "/run/secrets/key", kind: .bind(source: "/srv/shop/key.txt"), readOnly: true)))
    #expect(a.mounts.contains(Mount(target: "/etc/key", kind: .bind(source: "/srv/shop/key.txt"), readOnly: true)))
    #expect(
      a.mounts.contains(
        Mount(target: "/etc/a.conf", kind: .bind(source: "/srv/shop/policies/files/a-text"), readOnly: true)))
    #expect(result.files.first { $0.name == "files/a-text" }?.text == "a=1\n")
    #expect(losses(result) == ["4 a secrets.key.mode", "4 a secrets.env"])
  }

  @Test("anchors, merge keys and extends within the file are followed")
  func shared() throws {
    let all = policies(
      of: imported(
        """
        x-base: &base {image: i, restart: always, environment: {A: '1'}}
        services:
          a: {<<: *base, command: run me}
          b:
            extends: a
            environment: {B: '2'}
        """))
    #expect(all["b"]?.restart == .always)
    #expect(all["b"]?.entry == ["run", "me"])
    #expect(all["b"]?.environment.map(\.name) == ["A", "B"])
  }

  @Test("what is refused is dropped with its line and reason, and noted in the policy; the rest is taken")
  func dropped() throws {
    let result = imported(
      """
      services:
        a:
          image: i
          sysctls: {net.core.somaxconn: 1}
          cap_add: [SYS_ADMIN, KILL]
          pid: host
          tty: false
          cgroup_parent: x
          user: www-data
          nonsense: 1
          extra_hosts: ["db:10.0.0.1", "h:host-gateway"]
      """)
    let a = try #require(policies(of: result)["a"])
    #expect(a.capabilities.add.contains("KILL") && !a.capabilities.add.contains("SYS_ADMIN"))
    #expect(a.user == .image)
    #expect(a.network.extraHosts.map(\.name) == ["db"])
    let keys = Set(result.remarks.filter(\.isLoss).map(\.key))
    #expect(keys.isSuperset(of: ["sysctls", "pid", "cgroup_parent", "user", "nonsense", "extra_hosts[1]"]))
    #expect(!keys.contains("tty"))
    #expect(!result.remarks.contains { $0.isLoss && ($0.line == 0 || $0.reason.isEmpty) })
    #expect(result.files[0].text.contains("# dropped: sysctls: kernel parameters"))
  }

  @Test(
    "a file that is none is refused, whatever it is",
    arguments: [
      "", "services: {}", "services: [a]", "a: b", "services: {a: {build: {}}}: x", "services: {a: {command: x}}",
      "\u{0}",
    ])
  func broken(_ yaml: String) {
    let result = imported(yaml)
    #expect(!result.problems.isEmpty)
    #expect(result.files.isEmpty)
  }

  @Test("every key of Compose is either taken, translated or dropped with a reason, never passed over in silence")
  func everyKey() {
    let quiet: Set<String> = ["image", "expose", "init", "attach", "extends", "cpu_period", "container_name"]
    for key in composeKeys.sorted() where !quiet.contains(key) {
      let result = imported("services:\n  a:\n    image: i\n    \(key): '7'\n  b: {image: i}\n")
      let isSaid = result.remarks.contains { $0.app == "a" && ($0.key.contains(key) || $0.line == 4) }
      let text = result.files.first { $0.name == "a.yaml" }?.text ?? ""
      let isTaken = text.contains("\(key == "command" ? "entry" : key == "cpu_count" ? "cpus" : key):")
      if !isSaid, !isTaken, result.problems.isEmpty { Issue.record("\(key) is passed over: \(text)") }
    }
  }

  @Test("a prefix keeps two projects apart, and their services still find each other by name")
  func prefix() throws {
    let all = policies(
      of: imported("services: {db: {image: i}, web: {image: i, depends_on: [db]}}", prefix: "blog-"))
    #expect(all.keys.sorted() == ["blog-db", "blog-web"])
    #expect(all["blog-web"]?.dependencies.map(\.app.name) == ["blog-db"])
    #expect(all["blog-db"]?.network.attachments.first?.aliases == ["db"])
  }
}
