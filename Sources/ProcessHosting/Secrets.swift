internal import FileSystems
package import Model

extension NativeHost {
  package func changedSecrets(_ policy: Policy) async -> [String] { SecretMemory(layout).changed(policy) }

  package func forget(_ app: AppID) async { SecretMemory(layout).forget(app) }
}
