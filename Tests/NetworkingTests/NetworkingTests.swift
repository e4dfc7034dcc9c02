import Linux
import Model
import PacketFilter
import Testing

@testable import Networking

@Suite struct AddressBookTests {
  @Test("an app keeps its address, blocks avoid what is routed, and what is kept on disk reads back the same")
  func addresses() throws {
    var book = AddressBook()
    let taken = [IPv4Block(try #require(IPv4("10.231.0.0")), prefix: 24)]
    let block = try book.block(of: "a", taken: taken, seed: 0)
    #expect(block.description == "10.231.1.0/26")
    #expect(try book.block(of: "b", taken: taken, seed: 0).description == "10.231.1.64/26")
    #expect(try book.block(of: "a", taken: [], seed: 7) == block)
    let first = try book.address(of: "x", in: "a", present: [])
    #expect(first.description == "10.231.1.2")
    #expect(try book.address(of: "y", in: "a", present: []).description == "10.231.1.3")
    #expect(try book.address(of: "x", in: "a", present: []) == first)
    #expect(AddressBook(book.json) == book)
  }

  @Test("a full network gives on the addresses of apps that are not there, and none of those that are")
  func full() throws {
    var book = AddressBook()
    _ = try book.block(of: "a", taken: [], seed: 0)
    for number in 0..<61 { _ = try book.address(of: "app\(number)", in: "a", present: []) }
    let present = Set((1..<61).map { "app\($0)" })
    #expect(try book.address(of: "late", in: "a", present: present).description == "10.231.0.2")
    let all = present.union(["late"])
    #expect(throws: AddressBook.Full.addresses) { try book.address(of: "later", in: "a", present: all) }
  }

  @Test("when every block is routed somewhere there is none") func noBlock() {
    var book = AddressBook()
    #expect(throws: AddressBook.Full.blocks) { try book.block(of: "a", taken: [AddressBook.pool], seed: 3) }
  }

  @Test("a block that is somebody else's is not chosen again, whatever else is forgotten") func avoided() throws {
    var book = AddressBook()
    let first = try book.block(of: "one", taken: [], seed: 7)
    book.avoid(blockOf: "one")
    book.avoid(blockOf: "unknown")
    var again = AddressBook(try JSONValue(parsing: Array(book.json.text.utf8)))
    #expect(again == book && again.networks.isEmpty)
    #expect(try !again.block(of: "one", taken: [], seed: 7).overlaps(first))
    #expect(try !again.block(of: "two", taken: [], seed: 7).overlaps(first))
  }

  @Test("a damaged file gives nobody an address twice") func damaged() throws {
    let text =
      #"{"networks": {"a": {"block": "10.231.0.0/26", "addresses": {"x": "10.231.0.5", "y": "10.231.0.5", "z": "9.9.9.9"}}, "b": {"block": "10.231.0.0/26"}, "c": {"block": "0.0.0.0/0"}}}"#
    let book = AddressBook(try JSONValue(parsing: Array(text.utf8)))
    #expect(book.networks.count == 1)
    #expect(book.networks.values.first?.addresses.count == 1)
  }
}

@Suite struct FilterRuleTests {
  private let rules = FilterRules(instance: "a-1")

  @Test("of others' chains those are told that drop what is routed") func dropping() {
    let listing = """
      table ip filter {
      \tchain FORWARD {
      \t\ttype filter hook forward priority 0; policy drop;
      \t}
      \tchain INPUT {
      \t\ttype filter hook input priority 0; policy drop;
      \t}
      }
      table inet guard {
      \tchain in and out {
      \t\ttype filter hook forward priority 0; policy accept;
      \t}
      }
      table inet appsupervisor_x {
      \tchain forward {
      \t\ttype filter hook forward priority 0; policy drop;
      \t}
      }
      table bridge filter {
      \tchain FORWARD {
      \t\ttype filter hook forward priority 0; policy drop;
      \t}
      }
      """
    #expect(PacketFilter.dropping(in: listing).map(\.description) == ["ip filter FORWARD"])
    #expect(PacketFilter.dropping(in: "").isEmpty)
  }

  @Test("an app without a list reaches everything but what is always blocked; with one, only what it names")
  func lists() throws {
    var app = FilterRules.App(
      key: "notes", seats: [.init(bridge: "asb1", address: try #require(IPv4("10.231.0.2")))], egress: nil)
    #expect(rules.admit(app).contains("add rule inet appsupervisor_a_1 a_notes goto c_notes"))
    #expect(rules.admit(app).contains("waiting { 10.231.0.2 }"))
    app.egress = Egress(
      allow: [
        .init(.block(IPv4Block(try #require(IPv4("10.0.0.0")), prefix: 8)), ports: 5432...5433),
        .init(.name("api.example.com"), ports: 443...443),
        .init(.name("unknown.example.com"), ports: 53...53, transport: .udp),
      ], maximumConnections: 3)
    app.resolved = ["api.example.com": [try #require(IPv4("192.0.2.1"))]]
    let text = rules.admit(app)
    #expect(text.contains("ip daddr 10.0.0.0/8 meta l4proto 6 th dport 5432-5433 goto c_notes"))
    #expect(text.contains("ip daddr { 192.0.2.1 } meta l4proto 6 th dport 443 goto c_notes"))
    #expect(!text.contains("th dport 53 goto") && !text.contains("resolving"))
    #expect(text.contains("a_notes reject") && text.contains("c_notes ct count over 3 reject"))
  }

  @Test("what is put in is taken out again, in an order the kernel takes") func roundTrip() throws {
    guard PacketFilter.obstacle == nil else { return }
    let rules = FilterRules(instance: "unit-\(UInt32.random(in: 0 ... .max))")
    let filter = try PacketFilter()
    defer { _ = try? filter.run(rules.away) }
    var app = FilterRules.App(
      key: "x-y.2", seats: [.init(bridge: "asbtest", address: try #require(IPv4("10.231.0.9")))],
      egress: Egress(allow: [.init(.block(IPv4Block(IPv4(0), prefix: 0)), ports: 1...65535)], maximumConnections: 2))
    try filter.run(rules.whole([], bridges: ["asbtest"]))
    try filter.run(rules.admit(app))
    try filter.run(rules.admit(app))
    try filter.run(rules.look(app.seats))
    let shared = FilterRules.shared(try filter.run(rules.list("inet")))
    #expect(shared.contains("chain out") && !shared.contains("x-y"))
    let ports = [FilterRules.Port(name: "veth9", hardware: [2, 66, 0, 1, 2, 255], address: app.seats[0].address)]
    try filter.run(rules.bind(app, ports))
    app.ports = ports
    try filter.run(rules.allow(app))
    #expect(try filter.run(rules.lookForAny, elements: true).contains("elements"))
    try filter.run(rules.dismiss(app, bridges: ["asbtest"]))
    #expect(try !filter.run(rules.lookForAny, elements: true).contains("elements"))
    #expect(throws: HostFailure.self) { try filter.run(rules.look(app.seats)) }
    #expect(throws: HostFailure.self) { try filter.run("add element inet \(rules.table) nosuch { 1 }") }
  }
}

@Suite struct HostsFileTests {
  @Test("a hosts file has the app itself, its neighbours and what it may connect to") func text() throws {
    var file = HostsFile(hostName: "notes")
    file.own = IPv4("10.231.0.2")
    file.neighbours = [.init(address: try #require(IPv4("10.231.0.3")), names: ["db", "store"])]
    file.resolved = ["api.example.com": [try #require(IPv4("192.0.2.1"))]]
    #expect(
      file.text
        == "127.0.0.1 localhost\n::1 localhost\n10.231.0.2 notes\n10.231.0.3 db store\n192.0.2.1 api.example.com\n")
  }
}
