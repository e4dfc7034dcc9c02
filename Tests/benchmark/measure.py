"""Rows of the performance table: ours beside peers, in one run, in alternating order, medians.

Read from the bottom: `main` runs ROWS; each row is a function that returns {contender: function}, and each such function
does the work once and returns one number. What a contender cannot do here raises Unusable, with the reason for the table.
Start times come from the probe, which notes CLOCK_MONOTONIC as it begins; nothing else of what it does is timed.
"""
import argparse
import datetime
import glob
import hashlib
import http.client
import io
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

BIN = os.environ["APPSUPERVISOR_BIN"]
DOCKER = os.environ.get("SUPERVISOR_TEST_DOCKER_SOCK")
PODMAN = os.environ.get("SUPERVISOR_TEST_PODMAN_SOCK")
IMAGE = os.environ.get("SUPERVISOR_TEST_IMAGE", "appsup-test/busybox:1")
TICK = os.sysconf("SC_CLK_TCK")
# podman drops its configured defaults as soon as one is named, and its built-in ones pass what this root may set.
ULIMITS = [{"Name": "nofile", "Soft": 1024, "Hard": 1024}, {"Name": "nproc", "Soft": 1000, "Hard": 1000}]


class Unusable(Exception):
    """Not measured, and why."""


def now():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def run(*command, check=True, timeout=60, **options):
    # Into a file, not a pipe: a daemon left behind would hold a pipe open for ever.
    with tempfile.TemporaryFile("w+") as output:
        options.setdefault("stdout", output)
        options.setdefault("stderr", subprocess.STDOUT)
        words = list(map(str, command))
        done = subprocess.run(words, stdin=subprocess.DEVNULL, timeout=timeout, **options)
        output.seek(0)
        text = output.read()
    if check and done.returncode:
        raise Unusable(f"{os.path.basename(words[0])} {' '.join(words[1:])} ended with {done.returncode}: {text.strip()[-300:]}")
    return text


def need(program):
    if not shutil.which(program):
        raise Unusable(f"{program} is not installed")
    return program


# ---- probes -----------------------------------------------------------------------------------------------------


class Notes:
    """Files that probes append to. One token per use, so that old notes and old processes are never mistaken for new."""

    serial = 0

    def __init__(self, work):
        self.folder = os.path.join(work, "out")
        os.makedirs(self.folder, exist_ok=True)
        os.chmod(self.folder, 0o1777)
        shutil.copy(os.path.join(work, "probe"), os.path.join(self.folder, "probe"))

    def new(self, name="t"):
        Notes.serial += 1
        return f"{name}-{os.getpid()}-{Notes.serial}"

    def path(self, token):
        return os.path.join(self.folder, token)

    def lines(self, token):
        try:
            with open(self.path(token)) as file:
                return [int(line.split()[0]) for line in file if line.endswith("\n")]
        except FileNotFoundError:
            return []

    def wait(self, token, count=1, timeout=60):
        """The time of the count-th note."""
        end = time.monotonic() + timeout
        while True:
            lines = self.lines(token)
            if len(lines) >= count:
                return lines[count - 1]
            if time.monotonic() > end:
                raise Unusable(f"the probe did not start within {timeout} s")
            time.sleep(0.0005)

    def wait_all(self, tokens, count=1, timeout=120):
        return max(self.wait(token, count, timeout) for token in tokens)


def processes(part):
    """Host pids whose arguments hold this text, whatever namespace they are in; ended ones not counted."""
    found = []
    for folder in glob.glob("/proc/[0-9]*"):
        try:
            with open(folder + "/cmdline", "rb") as file:
                words = file.read().split(b"\0")
            if words[0].endswith(b"/probe") and any(word.endswith(part.encode()) for word in words):
                found.append(int(folder[6:]))
        except (OSError, IndexError):
            pass
    return found


def family(token_prefix):
    """Host pids of every probe whose note begins so."""
    found = []
    for folder in glob.glob("/proc/[0-9]*"):
        try:
            with open(folder + "/cmdline", "rb") as file:
                words = file.read().split(b"\0")
            if words[0].endswith(b"/probe") and len(words) > 1 and os.path.basename(words[1]).startswith(token_prefix.encode()):
                found.append(int(folder[6:]))
        except (OSError, IndexError):
            pass
    return found


def gone(prefix, timeout=60):
    """The moment when the last probe with this prefix has ended."""
    end = time.monotonic() + timeout
    pids = family(prefix)
    while pids:
        if time.monotonic() > end:
            raise Unusable(f"{len(pids)} probes did not end within {timeout} s")
        pids = [pid for pid in pids if os.path.exists(f"/proc/{pid}") and not zombie(pid)]
        time.sleep(0.0005)
    return now()


def zombie(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def parent(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rsplit(")", 1)[1].split()[1])


def descendants(pid):
    children = {}
    for folder in glob.glob("/proc/[0-9]*"):
        try:
            children.setdefault(parent(int(folder[6:])), []).append(int(folder[6:]))
        except OSError:
            pass
    found, stack = [], [pid]
    while stack:
        one = stack.pop()
        found.append(one)
        stack += children.get(one, [])
    return found


# ---- the engines' API, raw --------------------------------------------------------------------------------------


class Engine:
    """The floor of what a client of the Engine can do: create and start, nothing more."""

    def __init__(self, path, name):
        if not path:
            raise Unusable(f"no {name} here")
        self.socket_path = path

    def call(self, method, path, body=None, ok=(200, 201, 204, 304, 404)):
        connection = http.client.HTTPConnection("engine", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self.socket_path)
        data = json.dumps(body) if body is not None else None
        connection.request(method, "/v1.41" + path, data, {"Content-Type": "application/json"} if data else {})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status not in ok:
            raise Unusable(f"{method} {path}: {answer.status} {text[:200].decode(errors='replace')}")
        return json.loads(text) if text.startswith(b"{") else text

    def create(self, notes, arguments, name, log=None):
        host = {"NetworkMode": "none", "Binds": [f"{notes.folder}:/out"], "Memory": 64 << 20, "PidsLimit": 32,
                "Ulimits": ULIMITS}
        if log:
            host["LogConfig"] = log
        body = {"Image": IMAGE, "Cmd": arguments, "HostConfig": host}
        return self.call("POST", f"/containers/create?name={name}", body, ok=(201,))["Id"]

    def start(self, name):
        self.call("POST", f"/containers/{name}/start", ok=(204, 304))

    def remove(self, name):
        for attempt in range(5):  # podman refuses while a container is just ending
            answer = self.call("DELETE", f"/containers/{name}?force=true&v=true", ok=(200, 204, 404, 409, 500))
            if not (isinstance(answer, dict) and "message" in answer and "no such" not in str(answer).lower()):
                return
            time.sleep(0.2 * (attempt + 1))


# ---- ours -------------------------------------------------------------------------------------------------------


class Ours:
    """One instance of ours in a folder of its own, driven through the command line as a person would."""

    def __init__(self, work, notes, name, engine="none"):
        if not os.access(f"{BIN}/supervisor", os.X_OK):
            raise Unusable("no supervisor in APPSUPERVISOR_BIN")
        self.root = os.path.join(work, "root-" + name)
        self.policies = os.path.join(work, "policies-" + name)
        self.notes, self.engine, self.socket = notes, engine, None
        os.makedirs(self.policies, exist_ok=True)

    def cli(self, *words, check=True, timeout=180):
        return run(f"{BIN}/supervisor", "--root", self.root, *words, check=check, timeout=timeout)

    def ask(self, method, arguments):
        """One call on the control socket, connected to once."""
        if self.socket is None:
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.connect(os.path.join(self.root, "run", "supervisor.sock"))
            self.answers = self.socket.makefile("rb")
        self.socket.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": arguments}).encode() + b"\n")
        while "id" not in (answer := json.loads(self.answers.readline())):
            pass
        if "error" in answer:
            raise Unusable(str(answer["error"]))

    def policy(self, app, arguments, container=False, **extra):
        probe = "/out/probe" if container else self.notes.path("probe")
        fields = {
            "schema": 1, "id": app, "runtime": "container" if container else "native", "entry": [probe, *arguments],
            "volumes": [{"type": "bind", "source": self.notes.folder, "target": "/out"}],
            "mem_limit": "64m", "pids_limit": 32, "enforcement": "degrade", "stop_grace_period": "5s", **extra,
        }
        if container:
            fields |= {"image": IMAGE}
        path = os.path.join(self.policies, app + ".yaml")
        with open(path, "w") as file:
            json.dump(fields, file)  # JSON is YAML
        return path

    def up(self, *words, wait=True):
        return self.cli("up", "-d", *(["--wait", "--wait-timeout", "120s"] if wait else []), "--engine", self.engine,
                        *words, timeout=200)

    def daemon(self):
        answer = {}
        for line in self.cli("version", "--format", "json").splitlines():
            if line.startswith("{"):
                answer |= json.loads(line)
        return int(answer["daemon"]["pid"])

    def close(self):
        """Asked first; then whatever still names this root, and its probes, is ended."""
        if not os.path.isdir(self.root):
            return
        try:
            self.cli("down", "--all", "--daemon", "-y", check=False, timeout=60)
        except (Unusable, subprocess.TimeoutExpired):
            pass
        for folder in glob.glob("/proc/[0-9]*"):
            try:
                with open(folder + "/cmdline", "rb") as file:
                    if any(word.startswith(self.root.encode()) for word in file.read().split(b"\0")):
                        os.kill(int(folder[6:]), signal.SIGKILL)
            except OSError:
                pass
        shutil.rmtree(self.root, ignore_errors=True)


# ---- peers that hold many apps ----------------------------------------------------------------------------------


class Runit:
    def __init__(self, folder, notes, tokens):
        need("runsvdir")
        self.folder = folder
        for token in tokens:
            os.makedirs(f"{folder}/{token}")
            script(f"{folder}/{token}/run", notes, token)
        # runsvdir waits a second when the folder has just been changed, which is our doing.
        os.utime(folder, (time.time() - 60, time.time() - 60))
        self.daemon = None

    def up(self):
        self.daemon = subprocess.Popen(["runsvdir", self.folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return self.daemon.pid

    def down(self):
        self.daemon.send_signal(signal.SIGHUP)

    def status(self):
        return ["sv", "status", *sorted(glob.glob(self.folder + "/*"))]

    def wait(self):
        self.daemon.wait(30)


class S6(Runit):
    def __init__(self, folder, notes, tokens):
        need("s6-svscan")
        super().__init__(folder, notes, tokens)

    def up(self):
        limit = str(2 * len(os.listdir(self.folder)) + 20)
        self.daemon = subprocess.Popen(["s6-svscan", "-c", limit, self.folder], stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
        return self.daemon.pid

    def down(self):
        run("s6-svscanctl", "-t", self.folder)

    def status(self):
        return None  # s6-svstat takes one service at a time


class Supervisord:
    def __init__(self, folder, notes, tokens):
        need("supervisord")
        os.makedirs(folder)
        self.conf = folder + "/supervisord.conf"
        with open(self.conf, "w") as file:
            file.write(f"[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={folder}/pid\n"
                       f"childlogdir={folder}\nminfds=2048\nuser=root\n[unix_http_server]\nfile={folder}/sock\n"
                       f"[supervisorctl]\nserverurl=unix://{folder}/sock\n[rpcinterface:supervisor]\n"
                       "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n")
            for token in tokens:
                file.write(f"[program:{token}]\ncommand={notes.path('probe')} {notes.path(token)}\nautorestart=true\n")
        self.daemon = None

    def up(self):
        self.daemon = subprocess.Popen(["supervisord", "-n", "-c", self.conf], stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
        return self.daemon.pid

    def down(self):
        # Its loop sleeps through a signal for up to a second, but wakes for a request.
        run("supervisorctl", "-c", self.conf, "stop", "all")

    def status(self):
        return ["supervisorctl", "-c", self.conf, "status"]

    def wait(self):
        self.daemon.terminate()
        self.daemon.wait(30)


def script(path, notes, token):
    with open(path, "w") as file:
        file.write(f"#!/bin/sh\nexec {notes.path('probe')} {notes.path(token)} 2>&1\n")
    os.chmod(path, 0o755)


PEERS = {"runit": Runit, "s6": S6, "supervisord": Supervisord}


# ---- rows -------------------------------------------------------------------------------------------------------


class Bench:
    def __init__(self, options):
        self.work, self.smoke = options.work, options.smoke
        self.notes = Notes(options.work)
        self.apps = options.apps
        self.containers = 4 if options.smoke else 20
        self.log_bytes = (4 << 20) if options.smoke else (100 << 20)
        self.calls = 100_000 if options.smoke else 10_000_000
        self.instances = []

    def ours(self, name, engine="none"):
        instance = Ours(self.work, self.notes, name, engine)
        self.instances.append(instance)
        return instance

    def close(self):
        for instance in self.instances:
            instance.close()
        self.instances.clear()
        for kind in ("t", "c", "crowd"):
            for pid in family(f"{kind}-{os.getpid()}-"):
                os.kill(pid, signal.SIGKILL)

    # One start of a sandboxed process.

    def native_asked(self):
        """The same without the command line's own start: what a program that supervises through us waits for."""
        return self.native_start(asked=True)

    def native_image(self):
        """The same for an app that runs from an image without an engine."""
        return self.native_start(asked=True, image=True)

    def image_archive(self, name):
        """What `docker save` would write for an image of one layer that holds folders alone."""
        def packed(entries):
            file = io.BytesIO()
            with tarfile.open(fileobj=file, mode="w") as archive:
                for entry, content in entries:
                    info = tarfile.TarInfo(entry)
                    if content is None:
                        info.type, info.mode = tarfile.DIRTYPE, 0o755
                    else:
                        info.size = len(content)
                    archive.addfile(info, None if content is None else io.BytesIO(content))
            return file.getvalue()

        layer = packed([(folder, None) for folder in ("bin", "etc", "out", "tmp", "usr", "var")])
        config = json.dumps({
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()), "os": "linux",
            "config": {}, "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
        }).encode()
        manifest = json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
        path = os.path.join(self.work, "image.tar")
        with open(path, "wb") as file:
            file.write(packed([("layer.tar", layer), ("config.json", config), ("manifest.json", manifest)]))
        return path

    def native_start(self, asked=False, image=False):
        notes = self.notes

        def timed(*command, timeout=30):
            token = notes.new()
            words = [str(word).replace("@", token) for word in command]
            begun = now()
            run(*words, timeout=timeout)
            return (notes.wait(token, timeout=5) - begun) / 1e6

        def spawn():
            return timed(notes.path("probe"), notes.path("@"), "exit")

        def bwrap():
            return timed(need("bwrap"), "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--bind",
                         notes.folder, "/mnt", "/mnt/probe", "/mnt/@", "exit")

        def oci(runtime):
            def start():
                bundle = os.path.join(self.work, "bundle")
                shutil.rmtree(bundle, ignore_errors=True)
                for folder in ("proc", "dev", "sys", "out"):
                    os.makedirs(f"{bundle}/rootfs/{folder}")
                run(need("runc"), "spec", cwd=bundle)
                token = notes.new()
                with open(bundle + "/config.json") as file:
                    config = json.load(file)
                config["process"] |= {"terminal": False, "args": ["/out/probe", "/out/" + token, "exit"]}
                config["mounts"] = [m for m in config["mounts"] if m["destination"] != "/sys/fs/cgroup"]
                config["mounts"].append({"destination": "/out", "type": "bind", "source": notes.folder,
                                         "options": ["rbind", "rw"]})
                config["linux"]["resources"] = {"memory": {"limit": 64 << 20}, "pids": {"limit": 32}}
                with open(bundle + "/config.json", "w") as file:
                    json.dump(config, file)
                begun = now()
                run(need(runtime), "run", "--bundle", bundle, token)
                return (notes.wait(token, timeout=5) - begun) / 1e6
            return start

        def docker_run():
            Engine(DOCKER, "docker")
            token = notes.new()
            begun = now()
            run("docker", "-H", "unix://" + DOCKER, "run", "--rm", "--network", "none", "-m", "64m", "--pids-limit", "32", "-v",
                notes.folder + ":/out", IMAGE, "/out/probe", "/out/" + token, "exit")
            return (notes.wait(token, timeout=5) - begun) / 1e6

        instance = []

        def ours():
            token = instance[0].token if instance else notes.new()
            if not instance:
                one = self.ours("image" if image else "asked" if asked else "start")
                if image:
                    one.up(one.policy("first", ["/out/" + notes.new()]))
                    one.cli("load", self.image_archive("bench/probe:1"))
                    one.up(one.policy("probe", ["/out/" + token], image="bench/probe:1", entry=["/out/probe", "/out/" + token]))
                else:
                    one.up(one.policy("probe", ["/out/" + token]))
                notes.wait(token, timeout=10)
                one.token = token
                instance.append(one)
            one = instance[0]
            one.cli("stop", "probe")
            count = len(notes.lines(token))
            time.sleep(0.1)
            begun = now()
            if asked:
                one.ask("app.start", {"apps": ["probe"]})
            else:
                one.cli("start", "probe")
            return (notes.wait(token, count + 1, timeout=10) - begun) / 1e6

        if image:
            return {"ours": ours, "bwrap": bwrap, "runc": oci("runc"), "docker run": docker_run}
        if asked:
            return {"ours": ours, "bwrap": bwrap}
        return {"ours": ours, "bwrap": bwrap, "runc": oci("runc"), "crun": oci("crun"), "docker run": docker_run,
                "floor: bare spawn": spawn}

    # One container, from the request to its first instruction.

    def docker_start(self):
        return self._container_start(DOCKER, "docker")

    def podman_start(self):
        return self._container_start(PODMAN, "podman")

    def _container_start(self, path, name):
        notes = self.notes

        def raw():
            engine = Engine(path, name)
            token = notes.new()
            begun = now()
            engine.start(engine.create(notes, ["/out/probe", "/out/" + token], token))
            taken = (notes.wait(token) - begun) / 1e6
            engine.remove(token)
            return taken

        def docker_run():
            engine = Engine(DOCKER, "docker")
            token = notes.new()
            begun = now()
            run("docker", "-H", "unix://" + DOCKER, "run", "-d", "--name", token, "--network", "none", "-m", "64m",
                "--pids-limit", "32", "-v", notes.folder + ":/out", IMAGE, "/out/probe", "/out/" + token)
            taken = (notes.wait(token) - begun) / 1e6
            engine.remove(token)
            return taken

        instance = []

        def ours():
            Engine(path, name)
            if not instance:
                one = self.ours("container-" + name, "unix://" + path)
                # The daemon is up and idle before the clock starts, as the engine is.
                one.up(one.policy("idle", [notes.path(notes.new())]))
                instance.append(one)
            one, token = instance[0], notes.new()
            file = one.policy("probe", ["/out/" + token], container=True)
            begun = now()
            one.up(file, wait=False)
            taken = (notes.wait(token) - begun) / 1e6
            one.cli("down", "probe")
            return taken

        return {"ours": ours, "raw API": raw, **({"docker run": docker_run} if name == "docker" else {})}

    # Twenty containers up, and down.

    def containers_up(self):
        return self._containers(0)

    def containers_down(self):
        return self._containers(1)

    def _containers(self, which):
        notes, count = self.notes, self.containers

        def raw():
            engine = Engine(DOCKER, "docker")
            tokens = [notes.new("c") for _ in range(count)]
            with ThreadPoolExecutor(4) as four:
                begun = now()
                list(four.map(lambda t: engine.start(engine.create(notes, ["/out/probe", "/out/" + t], t)), tokens))
                up = (notes.wait_all(tokens) - begun) / 1e6
                begun = now()
                list(four.map(engine.remove, tokens))
                down = (now() - begun) / 1e6
            return (up, down)[which]

        instance = []

        def ours():
            Engine(DOCKER, "docker")
            if not instance:
                one = self.ours(f"twenty{which}", "unix://" + DOCKER)
                one.up(one.policy("idle", [notes.path(notes.new())]))
                os.remove(one.policies + "/idle.yaml")
                instance.append(one)
            one, tokens = instance[0], [notes.new("c") for _ in range(count)]
            for index, token in enumerate(tokens):
                one.policy(f"c{index}", ["/out/" + token], container=True)
            begun = now()
            one.up(one.policies)
            up = (notes.wait_all(tokens) - begun) / 1e6
            begun = now()
            one.cli("down", one.policies)
            return (up, (now() - begun) / 1e6)[which]

        return {"ours": ours, "raw API, 4 at a time": raw}

    # A hundred native apps: up, stopped.

    def apps_up(self):
        return self._apps(lambda up, down: up)

    def apps_stopped(self):
        return self._apps(lambda up, down: down)

    def _apps(self, choose):
        def peer(kind):
            def both():
                with Crowd(self, kind) as crowd:
                    return choose(crowd.up_ms, crowd.stop())
            return both

        def ours():
            with OurCrowd(self) as crowd:
                return choose(crowd.up_ms, crowd.stop())

        return {"ours": ours, **{name: peer(kind) for name, kind in PEERS.items()}}

    # kill -9 of an app, to the first instruction of the next.

    def restart(self):
        def peer(kind):
            def measure():
                with Crowd(self, kind, count=4) as crowd:
                    time.sleep(1.2)  # supervisord counts an app as started after one second
                    return crowd.kill_one()
            return measure

        def ours():
            with OurCrowd(self, count=4) as crowd:
                time.sleep(1.2)
                return crowd.kill_one()

        return {"ours": ours, **{name: peer(kind) for name, kind in PEERS.items()}}

    # What supervising costs while nothing happens.

    def idle_rss(self):
        return self._idle("rss")

    def idle_pss(self):
        return self._idle("pss")

    def idle_cpu(self):
        return self._idle("cpu")

    def _idle(self, what):
        seconds = 1 if self.smoke else 10

        def measure(crowd):
            time.sleep(0.5 if self.smoke else 2)
            pids = crowd.supervisors()
            if what == "cpu":
                before = cpu(pids)
                time.sleep(seconds)
                return 100 * (cpu(pids) - before) / TICK / seconds
            return memory(pids, what) / 1024

        def peer(kind):
            def one():
                with Crowd(self, kind) as crowd:
                    return measure(crowd)
            return one

        def ours():
            with OurCrowd(self) as crowd:
                return measure(crowd)

        contenders = {"ours": ours, **{name: peer(kind) for name, kind in PEERS.items()}}
        if what != "cpu":
            def daemon_only():
                with OurCrowd(self) as crowd:
                    time.sleep(0.5)
                    return memory([crowd.one.daemon()], what) / 1024
            contenders["ours, daemon alone"] = daemon_only
        return contenders

    # What the system call filter costs: the same app with and without it, in one run.

    def filtered_calls(self):
        return self._filtered("calls", self.calls)

    def filtered_memory(self):
        return self._filtered("memory", self.calls * 5)

    def _filtered(self, what, count):
        notes = self.notes

        def took(token):
            notes.wait(token, 3, 120)
            return (notes.lines(token)[2] - notes.lines(token)[1]) / count

        instance = []

        def ours(name, **extra):
            def measure():
                if not instance:
                    one = self.ours("filter")
                    os.makedirs(os.path.join(one.root, "config"))
                    with open(os.path.join(one.root, "config", "config.yaml"), "w") as file:
                        file.write("privileged_apps: [without]\n")
                    instance.append(one)
                token = notes.new()
                instance[0].up(instance[0].policy(name, ["/out/" + token, what, str(count)], **extra), wait=False)
                try:
                    return took(token)
                finally:
                    instance[0].cli("down", name)
            return measure

        def bare(what):
            def measure():
                token = notes.new()
                run(notes.path("probe"), notes.path(token), what, count)
                return took(token)
            return measure

        # Only a privileged app may be without one; no other layer has a part in these.
        without = ours("without", sandbox="privileged", security_opt=["seccomp=unconfined"])
        return {"ours": ours("filtered"), "floor: without a filter": without, "floor: outside any app": bare(what)} | (
            {"floor: a filter of one instruction": bare("empty")} if what == "calls" else {})

    # An app's output, as fast as it is taken.

    def log_large(self):
        return self._log(65536, self.log_bytes)

    def log_small(self):
        return self._log(100, self.log_bytes // 5)

    def _log(self, size, total):
        notes = self.notes

        def rate(token, timeout=120):
            notes.wait(token, 2, timeout)
            first, last = notes.lines(token)[:2]
            return total / ((last - first) / 1e9) / 1e6

        def piped(*logger):
            def measure():
                need(logger[0])
                token, folder = notes.new(), os.path.join(self.work, "log")
                shutil.rmtree(folder, ignore_errors=True)
                os.makedirs(folder)
                reader, writer = os.pipe()
                taker = subprocess.Popen([word.replace("@", folder) for word in logger], stdin=reader,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                os.close(reader)
                probe = subprocess.Popen([notes.path("probe"), notes.path(token), "write", str(size), str(total)], stdout=writer)
                os.close(writer)
                probe.wait(300)
                taker.wait(300)
                return rate(token)
            return measure

        def to_file():
            token = notes.new()
            with open(os.path.join(self.work, "plain.log"), "wb") as file:
                run(notes.path("probe"), notes.path(token), "write", size, total, stdout=file, stderr=None)
            return rate(token)

        def engine(path, name, driver):
            def measure():
                one, token = Engine(path, name), notes.new()
                log = {"Type": driver, "Config": {"max-size": "10m", "max-file": "3"} if name == "docker" else {}}
                one.create(notes, ["/out/probe", "/out/" + token, "write", str(size), str(total)], token, log)
                one.start(token)
                try:
                    return rate(token, 300)
                finally:
                    one.remove(token)
            return measure

        instance = []

        def ours():
            if not instance:
                instance.append(self.ours(f"log{size}"))
            one, token = instance[0], notes.new()
            file = one.policy("writer", ["/out/" + token, "write", str(size), str(total)],
                              logging={"options": {"max-size": "10m", "max-file": "3"}})
            one.up(file, wait=False)
            try:
                return rate(token)
            finally:
                one.cli("down", "writer")

        return {"ours": ours, "s6-log": piped("s6-log", "-b", "t", "n3", "s10000000", "@"), "svlogd": piped("svlogd", "-tt", "@"),
                "docker json-file": engine(DOCKER, "docker", "json-file"), "docker local": engine(DOCKER, "docker", "local"),
                "podman (conmon)": engine(PODMAN, "podman", "k8s-file"), "floor: into a file": to_file}

    # The command line itself.

    def list_apps(self):
        held = {}

        def command(*words):
            begun = now()
            run(*words)
            return (now() - begun) / 1e6

        def ours():
            if "ours" not in held:
                held["ours"] = OurCrowd(self).__enter__()
                self.held.append(held["ours"])
            return command(f"{BIN}/supervisor", "--root", held["ours"].one.root, "ps")

        def peer(name):
            def measure():
                if name not in held:
                    held[name] = Crowd(self, PEERS[name]).__enter__()
                    self.held.append(held[name])
                    time.sleep(0.5)
                return command(*held[name].system.status())
            return measure

        self.held = []
        return {"ours": ours, "sv status": peer("runit"), "supervisorctl status": peer("supervisord")}

    def version(self):
        def command(*words):
            def measure():
                begun = now()
                run(*words)
                return (now() - begun) / 1e6
            return measure

        def ours():
            if not os.access(f"{BIN}/supervisor", os.X_OK):
                raise Unusable("no supervisor in APPSUPERVISOR_BIN")
            begun = now()
            run(f"{BIN}/supervisor", "--root", os.path.join(self.work, "root-none"), "version", check=False)
            return (now() - begun) / 1e6

        return {"ours": ours, "docker --version": command("docker", "--version"),
                "podman --version": command("podman", "--version"), "supervisord --version": command("supervisord", "--version")}

    # kill -9 of the daemon, to a daemon that has every app again; none of them may have been started anew.

    def takeover(self):
        def ours():
            with OurCrowd(self) as crowd:
                os.kill(crowd.one.daemon(), signal.SIGKILL)
                begun = now()
                crowd.one.up(crowd.one.policies)
                taken = (now() - begun) / 1e6
                for token in crowd.tokens:
                    if len(self.notes.lines(token)) != 1:
                        raise Unusable("an app was started again")
                return taken

        return {"ours": ours}


class Crowd:
    """Many probes under one peer."""

    def __init__(self, bench, kind, count=None):
        self.bench, self.kind = bench, kind
        self.prefix = bench.notes.new("crowd")
        self.tokens = [f"{self.prefix}.{index}" for index in range(count or bench.apps)]
        self.folder = os.path.join(bench.work, self.prefix)
        self.stopped = False

    def __enter__(self):
        self.system = self.kind(self.folder, self.bench.notes, self.tokens)
        begun = now()
        self.pid = self.system.up()
        try:
            self.up_ms = (self.bench.notes.wait_all(self.tokens) - begun) / 1e6
        except Unusable:
            self.__exit__()
            raise
        return self

    def stop(self):
        self.stopped = True
        begun = now()
        self.system.down()
        taken = (gone(self.prefix + ".") - begun) / 1e6
        self.system.wait()
        return taken

    def __exit__(self, *_):
        if not self.stopped:
            try:
                self.stop()
            except (Unusable, subprocess.TimeoutExpired):
                for pid in descendants(self.pid):
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)

    def supervisors(self):
        probes = set(family(self.prefix + "."))
        return [pid for pid in descendants(self.pid) if pid not in probes]

    def kill_one(self):
        token = self.tokens[0]
        count = len(self.bench.notes.lines(token))
        pid = processes(token)[-1]
        begun = now()
        os.kill(pid, signal.SIGKILL)
        return (self.bench.notes.wait(token, count + 1, timeout=20) - begun) / 1e6


class OurCrowd(Crowd):
    """The same probes under ours, each with every layer that the host can give."""

    def __init__(self, bench, count=None):
        super().__init__(bench, None, count)

    def __enter__(self):
        self.one = self.bench.ours(self.prefix)
        # The daemon runs before the clock starts only where the peer's does; here, as for the peers, it starts with the apps.
        for index, token in enumerate(self.tokens):
            self.one.policy(f"app{index}", ["/out/" + token], restart="always",
                            restart_policy={"delay": "0s", "max_attempts": 100})
        begun = now()
        self.one.up(self.one.policies)
        self.up_ms = (self.bench.notes.wait_all(self.tokens) - begun) / 1e6
        return self

    def stop(self):
        self.stopped = True
        begun = now()
        self.one.cli("down", self.one.policies)
        return (now() - begun) / 1e6

    def __exit__(self, *_):
        self.one.close()
        self.bench.instances.remove(self.one)

    def supervisors(self):
        """The daemon, and whatever stands between it or process 1 and each app."""
        found = {self.one.daemon()}
        for pid in family(self.prefix + "."):
            above = parent(pid)
            while above > 1 and above not in found:
                found.add(above)
                above = parent(above)
        return sorted(found)


def cpu(pids):
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return total


def memory(pids, what):
    """KiB."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                total += sum(int(line.split()[1]) for line in file if line.lower().startswith(what + ":"))
        except OSError:
            pass
    return total


# ---- the run ----------------------------------------------------------------------------------------------------

# Name, method, unit, and whether less is better.
ROWS = [
    ("native start by the command line: request to first instruction", "native_start", "ms", True),
    ("native start asked on the control socket: request to first instruction", "native_asked", "ms", True),
    ("native start from an image, asked on the control socket: request to first instruction", "native_image", "ms", True),
    ("container start on docker: request to first instruction, network none", "docker_start", "ms", True),
    ("container start on podman: request to first instruction, network none", "podman_start", "ms", True),
    ("{c} containers up, network none", "containers_up", "ms", True),
    ("{c} containers down", "containers_down", "ms", True),
    ("{n} native apps up (supervisor included)", "apps_up", "ms", True),
    ("{n} native apps stopped", "apps_stopped", "ms", True),
    ("restart, no delay: kill -9 to first instruction", "restart", "ms", True),
    ("idle with {n} apps: RSS, all supervising processes", "idle_rss", "MB", True),
    ("idle with {n} apps: PSS, all supervising processes", "idle_pss", "MB", True),
    ("idle with {n} apps: CPU", "idle_cpu", "%", True),
    ("log, 64 KiB writes", "log_large", "MB/s", False),
    ("log, 100 B writes", "log_small", "MB/s", False),
    ("a getpid call under our filter", "filtered_calls", "ns", True),
    ("a word of memory written under our filter", "filtered_memory", "ns", True),
    ("list {n} apps", "list_apps", "ms", True),
    ("say the version", "version", "ms", True),
    ("takeover of {n} apps after kill -9 of the daemon", "takeover", "ms", True),
]


def figure(value):
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"


def measure_row(bench, method, rounds):
    """Every contender once per round, the order turned each time; a first round warms up and is not counted."""
    contenders = getattr(bench, method)()
    values, reasons = {name: [] for name in contenders}, {}
    for turn in range(rounds + (0 if rounds == 1 else 1)):
        order = list(contenders)
        if turn % 2:
            order.reverse()
        for name in order:
            if name in reasons:
                continue
            try:
                value = contenders[name]()
            except Unusable as reason:
                reasons[name] = str(reason)
            except (OSError, subprocess.SubprocessError, ValueError, KeyError, IndexError, http.client.HTTPException) as fault:
                reasons[name] = f"{type(fault).__name__}: {fault}"
            else:
                if turn or rounds == 1:
                    values[name].append(value)
    for crowd in getattr(bench, "held", []):
        crowd.__exit__()
    bench.held = []
    bench.close()
    return {name: statistics.median(seen) for name, seen in values.items() if seen and name not in reasons}, reasons


def machine():
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), platform.machine())
    with open("/proc/meminfo") as file:
        total = int(file.readline().split()[1]) // 1024
    with open("/proc/self/mounts") as file:
        kinds = {line.split()[2] for line in file if line.split()[2] in ("cgroup", "cgroup2")}
    cgroups = {"cgroup2": "v2", "cgroup": "v1"}.get("".join(sorted(kinds)), "v1 and v2")
    with open("/etc/os-release") as file:
        system = next(line.split("=", 1)[1].strip().strip('"') for line in file if line.startswith("PRETTY_NAME"))
    return f"{model}, {os.cpu_count()} cores, {total} MiB, Linux {platform.release().split('-')[0]}, cgroups {cgroups}, {system}"


def versions():
    packages = ["docker.io", "podman", "runc", "crun", "bubblewrap", "runit", "s6", "supervisor", "conmon"]
    answer = run("dpkg-query", "-W", "-f", "${Package} ${Version}, ", *packages, check=False)
    return answer.strip().rstrip(",")


RESULTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results.md")


def into_readme(lines):
    """Puts machine, date, command and table between the README's two marks."""
    path = os.path.join(os.path.dirname(RESULTS), "..", "..", "README.md")
    begin, end = "<!-- benchmark: made by Tests/benchmark/run -->", "<!-- benchmark: end -->"
    with open(path) as file:
        before, rest = file.read().split(begin)
    after = rest.split(end)[1]
    with open(path, "w") as file:
        file.write(before + begin + "\n" + "\n".join(lines) + "\n" + end + after)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", required=True)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--apps", type=int)
    parser.add_argument("--out", default=RESULTS)
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.smoke else 5)
    options.apps = options.apps or (8 if options.smoke else 100)
    bench = Bench(options)
    table = ["| Work | Ours | Peers and floors, best first | Ours against the best peer |", "|---|---|---|---|"]
    left_out, silent = [], []
    for title, method, unit, less in ROWS:
        title = title.format(n=bench.apps, c=bench.containers)
        if options.only and not any(word in title or word == method for word in options.only):
            continue
        try:
            medians, reasons = measure_row(bench, method, options.rounds)
        finally:
            bench.close()
        ours = {name: value for name, value in medians.items() if name.startswith("ours")}
        others = sorted((item for item in medians.items() if item not in ours.items()), key=lambda i: i[1], reverse=not less)
        peers = [value for name, value in others if not name.startswith("floor")]
        main_value = next(iter(ours.values()), None)
        against = "–"
        if main_value and peers:
            ratio = (peers[0] / main_value) if less else (main_value / peers[0])
            against = f"{ratio:.2f} × as {'fast' if unit in ('ms', 'MB/s') else 'small'}" if peers[0] else "–"
        own = "; ".join((name[6:] + " " if len(name) > 4 else "") + f"{figure(value)} {unit}" for name, value in ours.items())
        line = f"| {title} | {own or 'not measured'} | " + \
            ", ".join(f"{name} {figure(value)}" for name, value in others) + f" | {against} |"
        table.append(line)
        print(line, flush=True)
        left_out += [f"- {title}, {name}: {reason.splitlines()[0] if reason else ''}" for name, reason in reasons.items()]
        if any(name.startswith("ours") for name in reasons) and not ours:
            silent.append(title)
    text = ["# Ours and its peers, in one run", "",
            f"- Machine: {machine()}", f"- Date: {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC",
            f"- Command: `{os.environ.get('BENCH_COMMAND', '').strip()}`",
            f"- Peers: {versions()}",
            f"- Medians of {options.rounds} rounds after one to warm up, order turned each round. Compare within a row only: the",
            "  machine's speed differs from run to run. Ours and runit, s6, supervisord are timed from the command that starts",
            "  the supervisor; only ours puts each app into a sandbox and under limits.", "", *table, ""]
    if left_out:
        text += ["Not measured, and why:", "", *left_out, ""]
    if options.smoke:
        print("\n".join(left_out))
    else:
        with open(options.out, "w") as file:
            file.write("\n".join(text))
        print(f"written to {options.out}")
        if options.out == RESULTS and not options.only:
            into_readme([*text[2:5], "", *table])
    if options.smoke and silent:
        sys.exit(f"no number for ours in: {'; '.join(silent)}")


if __name__ == "__main__":
    main()
