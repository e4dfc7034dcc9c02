internal import Glibc
internal import Linux
package import Model
internal import Sandboxing

extension NativeHost {
  package nonisolated func logs(_ app: AppID, _ instance: Instance?, _ query: LogQuery) -> AsyncThrowingStream<
    LogChunk, any Error
  > {
    let folder = layout.appLog(app)
    let run = instance?.generation
    return AsyncThrowingStream { continuation in
      do {
        for record in try LogFiles.records(folder, run) {
          continuation.yield(record)
        }
        continuation.finish()
      } catch { continuation.finish(throwing: error) }
    }
  }
}

enum LogFiles {
  static func records(_ path: String, _ run: UInt64?) throws -> [LogChunk] {
    guard File.exists(path) else { return [] }
    let folder = try Folder(opening: path)
    var chunks: [LogChunk] = []
    for number in try folder.names().compactMap({ LogName.number(ofIndex: $0) }).sorted() {
      let index = try folder.read(LogName.index(number), limit: 1 << 28)
      let log = try folder.read(LogName.log(number), limit: 1 << 30)
      for place in stride(from: 0, to: index.count - LogRecord.size + 1, by: LogRecord.size) {
        guard let record = LogRecord(bytes: index[place..<place + LogRecord.size]), record.stream != .lost,
          run == nil || record.run == run
        else { continue }
        chunks.append(
          LogChunk(
            time: WallTime(nanoseconds: record.time), stream: record.stream == .error ? .error : .output,
            bytes: Array(log[Int(record.offset)..<Int(record.offset) + Int(record.length)])))
      }
    }
    return chunks
  }
}
