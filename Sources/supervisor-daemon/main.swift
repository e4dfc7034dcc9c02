print("supervisor-daemon")
