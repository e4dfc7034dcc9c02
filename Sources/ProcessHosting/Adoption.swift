internal import Cgroups
internal import Glibc
internal import Linux
package import Model
internal import Sandboxing

extension NativeHost {
  package func adopt(_ known: [(instance: Instance, launch: Launch)]) async throws(HostFailure) -> (
    found: [Instance: Adoption], removed: [String]
  ) {
    var found: [Instance: Adoption] = [:]
    for (instance, launch) in known { found[instance] = await adopt(instance, launch) }
    return (found, [])
  }

  private func adopt(_ instance: Instance, _ launch: Launch) async -> Adoption { .gone }
}
