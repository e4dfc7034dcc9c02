import Model
import Testing

@testable import Policies

@Suite struct EgressTests {
  @Test("what an app may connect to is read, implies a network, and reads back the same")
  func read() throws {
    let policy = try container(
      "egress: {allow: [\"API.example.com:443\", 10.0.0.0/8:5432-5433, 10.0.0.53:53/udp], max_connections: 20}")
    #expect(policy.network.mode == .bridge)
    let egress = try #require(policy.network.egress)
    #expect(egress.maximumConnections == 20)
    #expect(egress.allow?.map(\.text) == ["api.example.com:443", "10.0.0.0/8:5432-5433", "10.0.0.53:53/udp"])
    #expect(egress.names == ["api.example.com"])
    #expect(try container("egress: {allow: []}").network.egress?.allow == [])
    #expect(try container("egress: {max_connections: 1}").network.egress?.allow == nil)
  }

  @Test("a rule that says less than a host and a port, or names what is always blocked, is an error")
  func wrong() {
    for rule in [
      "api.example.com", "10.0.0.1", ":443", "a:0", "a:70000", "a:9-3", "a:1/icmp", "10.0.0.1/8:1", "10.0.0.0/33:1",
      "*.example.com:443", "[::1]:443", "2001:db8::1:443", "169.254.169.254:80", "169.254.0.0/16:80", "1.2.3:4",
      "a b:1",
    ] { #expect(complaints("egress: {allow: [\"\(rule)\"]}").count == 1, "\(rule)") }
    #expect(complaints("network_mode: none\negress: {allow: []}").count == 1)
    #expect(complaints("bandwidth: {egress: 1mbit}").count == 1)
    #expect(complaints("network_mode: bridge\nbandwidth: {egress: 1mb}").count == 1)
    let both = complaints("network_mode: bridge\nbandwidth: {egress: 1mbit}\ncap_add: [NET_ADMIN]")
    #expect(both.contains { $0.contains("bandwidth") }, "\(both)")
  }

  @Test("rates are powers of ten, as tc has them") func rates() throws {
    let policy = try container("network_mode: bridge\nbandwidth: {egress: 10mbit, ingress: 1500kbit}")
    #expect(policy.network.bandwidth == Bandwidth(egress: 10_000_000, ingress: 1_500_000))
    #expect(rateText(1_500_000) == "1500kbit" && rateText(10_000_000) == "10mbit")
    #expect(bitsPerSecond("7kbit") == nil && bitsPerSecond("8kbit") == 8000 && bitsPerSecond("101gbit") == nil)
  }
}
