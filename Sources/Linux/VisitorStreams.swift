internal import Glibc

/// The streams between an app and somebody who visits it: the caller's ends, and ours.
package struct VisitorStreams: Sendable {
  /// The caller's, until they are handed over: who keeps them never sees the caller's end.
  package var ends: DescriptorEnds?
  /// What the caller types; nil: nothing.
  package let input: LoopStream?
  /// What the caller sees. With a terminal there are no errors apart.
  package let output: LoopStream
  package let errors: LoopStream?

  package init(input takesInput: Bool, terminal: Bool, on loop: EventLoop) throws(SystemFault) {
    guard !terminal else {
      let (ours, theirs) = try UnixSocket.pair()
      let stream = try LoopStream(ours, on: loop)
      (input, output, errors) = (takesInput ? stream : nil, stream, nil)
      ends = DescriptorEnds(input: takesInput ? theirs : nil, output: theirs, errors: nil)
      return
    }
    let (readOutput, writeOutput) = try Self.pipe()
    let (readErrors, writeErrors) = try Self.pipe()
    output = try LoopStream(writeOutput, on: loop)
    errors = try LoopStream(writeErrors, on: loop)
    guard takesInput else {
      input = nil
      ends = DescriptorEnds(input: nil, output: readOutput, errors: readErrors)
      return
    }
    let (reading, writing) = try Self.pipe()
    input = try LoopStream(reading, on: loop)
    ends = DescriptorEnds(input: writing, output: readOutput, errors: readErrors)
  }

  /// The caller sees the end of what was written so far.
  package func close() async {
    await input?.close()
    await output.close()
    await errors?.close()
  }

  private static func pipe() throws(SystemFault) -> (SharedDescriptor, SharedDescriptor) {
    var pipe = try Pipe(nonBlockingRead: false)
    guard let reading = pipe.reading.take(), let writing = pipe.writing.take() else {
      throw SystemFault(call: "pipe", subject: "", code: EBADF)
    }
    return (SharedDescriptor(reading), SharedDescriptor(writing))
  }
}
