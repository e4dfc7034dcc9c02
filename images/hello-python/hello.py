"""Counts its runs in the supervisor's store, and tells what it may ask for. Run by policies/examples/calls.yaml."""

import sys
import time

sys.path.insert(0, "/sdk")
from appsupervisor import Denied, Supervisor

with Supervisor() as supervisor:
    runs = int(supervisor.call("store.get", key="runs")["value"] or 0) + 1
    supervisor.call("store.set", key="runs", value=str(runs))
    print(f"run {runs} of this app", flush=True)
    for rule in supervisor.call("perm.list")["granted"]:
        print(f"may ask for {rule['capability']}", flush=True)
    try:
        print("on kernel", supervisor.call("sys.info")["kernel"], flush=True)
    except Denied as denied:
        print(f"{denied}: {denied.hint}", flush=True)
    supervisor.call("log.write", level="notice", message="hello-python is up", fields={"run": runs})
    while True:
        time.sleep(3600)
