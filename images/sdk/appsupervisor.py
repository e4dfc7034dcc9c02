"""Asks the supervisor of this host for what an app may have. One file, nothing but Python's own library.

    from appsupervisor import Supervisor, Denied

    with Supervisor() as supervisor:
        print(supervisor.call("sys.info"))
        supervisor.call("store.set", key="seen", value="yes")
        if supervisor.request("events", "to follow the database"):
            for event in supervisor.events("app.*"):
                print(event["app"], event["event"], event.get("missed", 0))

Files: `read_file`, `write_file`, `open_file` (a real Python file, whose data the supervisor does not touch); the other calls of `fs`
by `call`.

`supervisor calls` prints every call with its arguments and the permission it needs. An instance may be used by many threads at
once; answers find their callers. After a restart of the supervisor the next call connects anew; a call that was under way then
raises `Closed`, because nobody knows whether it was carried out.
"""

import base64
import collections
import json
import os
import queue
import socket
import threading

__all__ = [
    "Supervisor", "Events", "SupervisorError", "Denied", "NotFound", "QuotaReached", "TooLarge", "RateReached", "Conflict",
    "TimedOut", "Revoked", "Closed", "Unsupported",
]

PATH = "/run/supervisor/app.sock"
LONGEST_FRAME = 4 << 20
MOST_READ = 2 << 20


class SupervisorError(Exception):
    """What a call answers when it does not succeed. `code` is JSON-RPC's, `data` may hold `capability`, `limit` and `hint`."""

    code = -32603

    def __init__(self, message, code=None, data=None):
        super().__init__(message)
        if code is not None:
            self.code = code
        self.data = data or {}

    @property
    def hint(self):
        return self.data.get("hint")


class Denied(SupervisorError):
    """The app lacks the permission `capability`."""

    code = -32001

    @property
    def capability(self):
        return self.data.get("capability")


class NotFound(SupervisorError):
    code = -32002


class QuotaReached(SupervisorError):
    code = -32003


class TooLarge(SupervisorError):
    code = -32004


class RateReached(SupervisorError):
    code = -32005


class Conflict(SupervisorError):
    code = -32006


class TimedOut(SupervisorError):
    code = -32007


class Revoked(SupervisorError):
    code = -32008


class Closed(SupervisorError):
    """The connection ended before the answer came, or there is nobody to connect to."""

    code = -32009


class Unsupported(SupervisorError):
    code = -32010


_KINDS = {kind.code: kind for kind in SupervisorError.__subclasses__()}


def _failure(error):
    return _KINDS.get(error["code"], SupervisorError)(error["message"], error["code"], error.get("data"))


def _bytes(result):
    data = result["data"]
    return base64.b64decode(data) if result["encoding"] == "base64" else data.encode()


class _Waiting:
    def __init__(self):
        self.done = threading.Event()
        self.answer = None
        self.on_item = None
        self.events = None


class Events:
    """What `Supervisor.events` was asked for, as it happens; use it in a `for`. `Revoked` is raised when the right to it is gone,
    `Closed` when the connection is: nobody knows then what was missed."""

    def __init__(self, supervisor, names):
        self._supervisor = supervisor
        self._queue = queue.SimpleQueue()
        self._number = supervisor._make("event.subscribe", {"names": list(names)}, None, self._queue)["subscription"]

    def __iter__(self):
        return self

    def __next__(self):
        return self.next()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def next(self, timeout=None):
        """The next event; `TimedOut` after so many seconds without one."""
        try:
            event = self._queue.get(timeout=timeout)
        except queue.Empty:
            raise TimedOut(f"nothing happened within {timeout} s") from None
        if event is None:
            self._queue.put(None)
            raise Closed("the supervisor went away")
        if "error" in event:
            self._queue.put(event)
            raise _failure(event["error"])
        return event

    def close(self):
        """Ends it; fine if it has ended."""
        try:
            self._supervisor.call("event.unsubscribe", subscription=self._number)
        except (NotFound, Closed):
            pass  # It had ended.
        self._supervisor._forget(self._number)


class Supervisor:
    """A connection to the supervisor, made at the first call."""

    def __init__(self, path=None):
        self._path = path or os.environ.get("SUPERVISOR_SOCKET", PATH)
        self._lock = threading.Lock()
        self._socket = None
        self._waiting = {}
        self._events = {}
        self._next = 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends the connection; calls under way raise `Closed`."""
        with self._lock:
            self._drop(self._socket)

    def call(self, method, /, timeout=None, on_item=None, **arguments):
        """Makes one call and returns its result. `timeout` in seconds: after it the call is cancelled and `TimedOut` raised.

        `on_item` is called with what comes ahead of the answer (as from fs.watch), on the thread that reads; it must not wait or call.
        Where a call gives a descriptor, `fd` of the result is that descriptor in this process, which the caller closes.
        """
        return self._make(method, arguments, timeout, None, on_item)

    def request(self, capability, reason=""):
        """Asks a person for a permission, unless it is decided already; True: it is granted. Without an answer it takes 30 s."""
        return self.call("perm.request", capability=capability, reason=reason)["granted"]

    def events(self, *names):
        """What happens from now on to this app and those it may inspect, by name (`app.exited`) or `app.*`."""
        return Events(self, names)

    def _forget(self, subscription):
        with self._lock:
            self._events.pop(subscription, None)

    def _make(self, method, arguments, timeout, events, on_item=None):
        waiting = _Waiting()
        waiting.events = events
        waiting.on_item = on_item
        with self._lock:
            connection = self._connect()
            number, self._next = self._next, self._next + 1
            self._waiting[number] = waiting
            self._send(connection, {"jsonrpc": "2.0", "id": number, "method": method, "params": arguments})
        if not waiting.done.wait(timeout):
            with self._lock:
                if self._waiting.pop(number, None) is not None and self._socket is connection:
                    self._send(connection, {"jsonrpc": "2.0", "method": "$/cancel", "params": {"id": number}})
            raise TimedOut(f"{method} did not answer within {timeout} s")
        if waiting.answer is None:
            raise Closed(f"the supervisor went away before {method} was answered")
        error = waiting.answer.get("error")
        if error is not None:
            raise _failure(error)
        return waiting.answer.get("result")

    def read_file(self, path, offset=0, length=None):
        """The bytes of a file, however long, or of a part of it; needs `fs.read`."""
        parts, left = [], length
        while left is None or left > 0:
            ask = MOST_READ if left is None else min(left, MOST_READ)
            result = self.call("fs.read", path=path, offset=offset, length=ask)
            data = _bytes(result)
            parts.append(data)
            offset += len(data)
            left = None if left is None else left - len(data)
            if result["eof"] or not data:
                break
        return b"".join(parts)

    def write_file(self, path, data, **how):
        """Writes bytes or text in place of what a file has; `append`, `offset`, `create`, `atomic` and `mode` as in fs.write."""
        if isinstance(data, str):
            return self.call("fs.write", path=path, data=data, **how)
        return self.call("fs.write", path=path, data=base64.b64encode(data).decode(), encoding="base64", **how)

    def open_file(self, path, mode="r", permissions=0o644, **how):
        """Opens a file as open() does (`r`, `w`, `a`, `x`, with `+` and `b`), by a descriptor that the supervisor passes.

        `how`: encoding, buffering and the like, for the Python file.
        """
        flags = mode.replace("b", "").replace("t", "")
        result = self.call("fs.open", path=path, flags=flags, mode=permissions)
        # The file has been made or cut by then.
        return os.fdopen(result["fd"], mode.replace("x", "w"), **how)

    def _connect(self):
        if self._socket is not None:
            return self._socket
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(self._path)
        except OSError as error:
            connection.close()
            raise Closed(f"{self._path}: {error.strerror}") from error
        self._socket = connection
        threading.Thread(target=self._read, args=(connection,), daemon=True).start()
        return connection

    def _send(self, connection, message):
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        if len(data) > LONGEST_FRAME:
            self._waiting.pop(message.get("id"), None)
            raise TooLarge(f"a call has at most {LONGEST_FRAME} bytes")
        try:
            connection.sendall(data)
        except OSError as error:
            self._drop(connection)
            raise Closed(f"{self._path}: {error.strerror}") from error

    def _read(self, connection):
        pending = b""
        # Descriptors come with the first byte of their frame, in the order of the results that name them.
        passed = collections.deque()
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(connection, 65536, 128)
            except OSError:
                data, descriptors = b"", []
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
            passed.extend(descriptors)
            if not data:
                break
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                if line:
                    self._hear(connection, json.loads(line), passed)
        for descriptor in passed:
            os.close(descriptor)
        with self._lock:
            self._drop(connection)

    def _hear(self, connection, message, passed):
        for answer in message if isinstance(message, list) else [message]:
            if answer.get("method") == "$/item":
                with self._lock:
                    waiting = self._waiting.get(answer["params"]["id"])
                if waiting is not None and waiting.on_item is not None:
                    waiting.on_item(answer["params"]["item"])
                continue
            result = answer.get("result")
            descriptor = passed.popleft() if isinstance(result, dict) and "fd" in result and passed else None
            if descriptor is not None:
                result["fd"] = descriptor
            with self._lock:
                if self._socket is not connection:
                    waiting = None
                elif answer.get("method") == "event":
                    events = self._events.get(answer["params"]["subscription"])
                    if events is not None:
                        events.put(answer["params"])
                    continue
                else:
                    waiting = self._waiting.pop(answer.get("id"), None)
                if waiting is not None:
                    if waiting.events is not None and "result" in answer:
                        self._events[answer["result"]["subscription"]] = waiting.events
                    waiting.answer = answer
                    waiting.done.set()
            if waiting is None and descriptor is not None:
                os.close(descriptor)

    def _drop(self, connection):
        """Under the lock. Nothing of a later connection is touched."""
        if connection is None or self._socket is not connection:
            return
        self._socket = None
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # Not connected any more, which is what was wanted.
        connection.close()
        lost, self._waiting = self._waiting, {}
        for waiting in lost.values():
            waiting.done.set()
        ended, self._events = self._events, {}
        for events in ended.values():
            events.put(None)
