// Works in bursts: counts primes for a while, rests, and notes how far it is in /data, if the app has one.
//
// Started again, it goes on from the noted number. Between bursts it waits for SIGTERM, and ends with its note written.
import Glibc

let note = "/data/worker.count"
let batch = 200_000

func say(_ line: String) {
  print(line)
  fflush(nil)
}

func primes(from first: Int, count: Int) -> Int {
  var found = 0
  for number in first..<(first + count) where number > 1 {
    var divisor = 2
    while divisor * divisor <= number, number % divisor != 0 { divisor += 1 }
    if divisor * divisor > number { found += 1 }
  }
  return found
}

/// Replaces the note in one step, so that a reader or a crash never meets half of it.
func save(_ value: Int) -> Bool {
  guard let file = fopen(note + ".new", "w") else { return false }
  fputs("\(value)\n", file)
  let written = fflush(file) == 0 && fsync(fileno(file)) == 0
  return fclose(file) == 0 && written && rename(note + ".new", note) == 0
}

func saved() -> Int {
  guard let file = fopen(note, "r") else { return 0 }
  defer { fclose(file) }
  var bytes = [CChar](repeating: 0, count: 32)
  guard fgets(&bytes, Int32(bytes.count), file) != nil else { return 0 }
  return max(0, atol(bytes))
}

var ending = sigset_t()
sigemptyset(&ending)
sigaddset(&ending, SIGTERM)
sigaddset(&ending, SIGINT)
sigprocmask(SIG_BLOCK, &ending, nil)

let lasting = access("/data", W_OK) == 0
var next = lasting ? saved() : 0
say("worker: starting at \(next), \(lasting ? "noting it in \(note)" : "with no /data to note it in")")

while true {
  let found = primes(from: next, count: batch)
  next += batch
  if lasting && !save(next) { say("worker: cannot write \(note): \(String(cString: strerror(errno)))") }
  say("worker: \(found) primes below \(next), in the last \(batch)")
  var rest = timespec(tv_sec: 2, tv_nsec: 0)
  if sigtimedwait(&ending, nil, &rest) > 0 { break }
}
say("worker: stopping at \(next)")
exit(0)
