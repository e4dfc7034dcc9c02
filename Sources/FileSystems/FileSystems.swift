// FileSystems
