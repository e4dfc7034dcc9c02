print("supervisor-shim")
