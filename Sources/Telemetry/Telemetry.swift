// Telemetry: numbers about apps and the daemon as Prometheus text, on a Unix socket or a loopback port.
//
// Owns:   the backend of swift-metrics (PrometheusRegistry.swift), what is told of each app (AppSample.swift), and the one page
//         that is served (MetricsServer.swift). The only target that imports swift-metrics.
// Never:  asks anybody but its caller for numbers, or shows what could be a secret: ids, stacks, states and sizes only.
// Next:   PrometheusRegistry.swift.
