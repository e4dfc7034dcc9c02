import Model
import Testing

@testable import Policies

@Suite("Devices of a policy") struct DeviceFieldTests {
  @Test("short and long form; shown as they are read again")
  func forms() throws {
    let policy = try container(
      "devices: [\"/dev/ttyUSB0:/dev/zigbee:rw\", /dev/hwrng, {source: /dev/x, target: /dev/y, permissions: r}]")
    #expect(
      policy.devices == [
        DeviceGrant(source: "/dev/ttyUSB0", target: "/dev/zigbee", access: "rw"),
        DeviceGrant(source: "/dev/hwrng", target: "/dev/hwrng", access: "rw"),
        DeviceGrant(source: "/dev/x", target: "/dev/y", access: "r"),
      ])
    #expect(readApplied(effectiveDocument(policy)).policy?.devices == policy.devices)
  }

  @Test(
    "what is no device of the host, or would replace one of the app's, is refused",
    arguments: [
      "/etc/passwd", "/dev", "/dev/../etc/passwd", "\"/dev/x:/etc/x\"", "\"/dev/x:/dev/null\"", "\"/dev/x:/dev/pts/3\"",
      "\"/dev/x:/dev/x:rwm\"", "\"/dev/x:/dev/x:rw:z\"", "\"/dev/x:/dev/supervisor/notify\"", "\"/dev/a\\nb\"",
    ])
  func refused(_ device: String) { #expect(!complaints("devices: [\(device)]").isEmpty, "\(device)") }

  @Test("only what config.yaml lists for this very app")
  func listed() throws {
    var rules = HostRules()
    rules.devices = ["a": ["/dev/x"], "b": ["/dev/y"]]
    _ = try container("devices: [/dev/x]", rules: rules)
    #expect(complaints("devices: [/dev/y]", rules: rules) == ["the device /dev/y is not allowed for a"])
    #expect(complaints("devices: [/dev/x, \"/dev/x:/dev/x\"]", rules: rules).count == 1)
    rules.devices = [:]
    #expect(complaints("devices: [/dev/x]", rules: rules).count == 1)
  }
}
