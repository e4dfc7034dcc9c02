internal import Linux
package import Model

extension NativeHost {
  package nonisolated func logs(_ app: AppID, _ instance: Instance?, _ query: LogQuery) -> AsyncThrowingStream<
    LogChunk, any Error
  > {
    let opened = OpenedReader()
    return AsyncThrowingStream {
      let reader: LogReader
      if let known = await opened.reader {
        reader = known
      } else {
        reader = await self.openReader(app, instance, query)
      }
      await opened.set(reader)
      return try await reader.next()
    }
  }

  /// The reader of one stream, made when it is first asked for a piece.
  private actor OpenedReader {
    var reader: LogReader?
    func set(_ reader: LogReader) { self.reader = reader }
  }

  private func openReader(_ app: AppID, _ instance: Instance?, _ query: LogQuery) -> LogReader {
    let live = runs.filter { $0.key.app == app && !$0.value.isEndKnown }
    // What ended runs wrote comes first, as for containers.
    let filter = LogReader.Filter(
      besides: query.run != nil ? [] : Set(live.map(\.key.generation).filter { $0 != instance?.generation }),
      only: query.run)
    let run = instance.flatMap { live[$0] }
    // The folder is made here as well as at create: a reader may come first, and has to watch it.
    if query.follow { _ = try? Folder(making: layout.appLog(app), mode: 0o750) }
    let reader = LogReader(layout.appLog(app), filter, query, isOver: run == nil, on: readerLoop)
    if query.follow { run?.readers.append(WeakReader(reader)) }
    return reader
  }

  /// Tells readers that follow a run that nothing is added any more.
  func endReaders(_ run: Run) {
    let readers = run.readers.compactMap(\.reader)
    run.readers = []
    // Each ends by itself: one hop to the readers' own loop.
    for reader in readers { Task { await reader.runEnded() } }
  }
}

/// A reader somebody else keeps alive.
struct WeakReader {
  weak var reader: LogReader?
  init(_ reader: LogReader) { self.reader = reader }
}
