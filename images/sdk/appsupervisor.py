"""Asks the supervisor of this host for what an app may have. One file, nothing but Python's own library.

    from appsupervisor import Supervisor, Denied

    with Supervisor() as supervisor:
        print(supervisor.call("sys.info"))
        supervisor.call("store.set", key="seen", value="yes")
        if supervisor.request("events", "to follow the database"):
            for event in supervisor.events("app.*"):
                print(event["app"], event["event"], event.get("missed", 0))

`supervisor calls` prints every call with its arguments and the permission it needs. An instance may be used by many threads at
once; answers find their callers. After a restart of the supervisor the next call connects anew; a call that was under way then
raises `Closed`, because nobody knows whether it was carried out.
"""

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


class _Waiting:
    def __init__(self):
        self.done = threading.Event()
        self.answer = None
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

    def call(self, method, /, timeout=None, **arguments):
        """Makes one call and returns its result. `timeout` in seconds: after it the call is cancelled and `TimedOut` raised."""
        return self._make(method, arguments, timeout, None)

    def request(self, capability, reason=""):
        """Asks a person for a permission, unless it is decided already; True: it is granted. Without an answer it takes 30 s."""
        return self.call("perm.request", capability=capability, reason=reason)["granted"]

    def events(self, *names):
        """What happens from now on to this app and those it may inspect, by name (`app.exited`) or `app.*`."""
        return Events(self, names)

    def _forget(self, subscription):
        with self._lock:
            self._events.pop(subscription, None)

    def _make(self, method, arguments, timeout, events):
        waiting = _Waiting()
        waiting.events = events
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
        while True:
            try:
                data = connection.recv(65536)
            except OSError:
                data = b""
            if not data:
                break
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                if line:
                    self._hear(connection, json.loads(line))
        with self._lock:
            self._drop(connection)

    def _hear(self, connection, message):
        for answer in message if isinstance(message, list) else [message]:
            with self._lock:
                if self._socket is not connection:
                    return
                if answer.get("method") == "event":
                    events = self._events.get(answer["params"]["subscription"])
                    if events is not None:
                        events.put(answer["params"])
                    continue
                waiting = self._waiting.pop(answer.get("id"), None)
                if waiting is not None and waiting.events is not None and "result" in answer:
                    self._events[answer["result"]["subscription"]] = waiting.events
            if waiting is not None:
                waiting.answer = answer
                waiting.done.set()

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
