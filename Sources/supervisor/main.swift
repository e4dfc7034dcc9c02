print("supervisor")
