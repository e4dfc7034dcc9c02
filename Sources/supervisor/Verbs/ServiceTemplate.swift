/// deploy/appsupervisor.service; a test holds the two together.
extension ServiceUnit {
  static let template = #"""
    # The system's instance of appsupervisor; `supervisor enable` writes this file with the paths of the programs it is run from.
    [Unit]
    Description=appsupervisor, which runs apps within their limits
    After=network-online.target local-fs.target docker.service podman.socket
    Wants=network-online.target
    StartLimitIntervalSec=60
    StartLimitBurst=10

    [Service]
    Type=notify
    NotifyAccess=main
    ExecStart=/usr/libexec/appsupervisor/supervisor-daemon --system
    ExecReload=/bin/kill -HUP $MAINPID
    Restart=always
    RestartSec=1
    WatchdogSec=30
    TimeoutStartSec=120

    # Apps outlive the daemon: only its own process is ended with the unit, and the next daemon takes the others over.
    KillMode=process
    SendSIGKILL=no
    Delegate=yes
    TasksMax=infinity
    LimitNOFILE=524288
    OOMScoreAdjust=-500

    ConfigurationDirectory=appsupervisor
    ConfigurationDirectoryMode=0750
    StateDirectory=appsupervisor
    StateDirectoryMode=0750
    LogsDirectory=appsupervisor
    LogsDirectoryMode=0750
    RuntimeDirectory=appsupervisor
    RuntimeDirectoryMode=0750
    # Shims of running apps listen in it.
    RuntimeDirectoryPreserve=yes

    # Native apps descend from this process and inherit what stands here, so only that which no app may have anyway. Nothing that
    # makes a mount namespace of its own (ProtectSystem, PrivateTmp, …): engines must see what the daemon mounts for a container.
    CapabilityBoundingSet=~CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_BOOT CAP_MAC_ADMIN CAP_MAC_OVERRIDE CAP_AUDIT_CONTROL CAP_WAKE_ALARM CAP_BLOCK_SUSPEND
    LockPersonality=yes
    KeyringMode=private

    [Install]
    WantedBy=multi-user.target

    """#
}
