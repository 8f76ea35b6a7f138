"""Questions of all kinds over what Prometheus scrapes from itself and from the node exporter."""

SELECTORS = [
    "up",
    "node_load1",
    'node_cpu_seconds_total{mode="idle"}',
    'node_cpu_seconds_total{mode!="idle",cpu="0"}',
    'node_filesystem_avail_bytes{mountpoint=~"/|/.*"}',
    'node_network_receive_bytes_total{device!~"veth.*"}',
    '{__name__=~"prometheus_tsdb_head_.*"}',
    '{job="node",__name__=~"node_memory_M.*"}',
    "prometheus_build_info",
    "prometheus_http_request_duration_seconds_bucket",
    "scrape_duration_seconds",
    "nothing_of_that_name",
]

RATES = [
    f"{function}({metric}[{range_}])"
    for function in ("rate", "increase", "irate", "delta", "idelta", "deriv", "changes", "resets")
    for metric, range_ in (
        ("prometheus_tsdb_head_samples_appended_total", "17s"),
        ('node_cpu_seconds_total{cpu="0"}', "13s"),
        ("node_memory_MemAvailable_bytes", "11s"),
    )
]

OVER_TIME = [
    f"{function}_over_time({metric}[14s])"
    for function in ("avg", "min", "max", "sum", "count", "last", "present", "stddev", "stdvar")
    for metric in ("node_load1", "scrape_duration_seconds")
] + [
    "quantile_over_time(0.9, scrape_duration_seconds[14s])",
    "quantile_over_time(0, node_load1[14s])",
    "absent_over_time(nothing_of_that_name[1m])",
    "predict_linear(node_memory_MemAvailable_bytes[15s], 60)",
]

AGGREGATIONS = [
    f"{operator} by (mode) (rate(node_cpu_seconds_total[12s]))"
    for operator in ("sum", "avg", "min", "max", "count", "stddev", "stdvar", "group")
] + [
    "sum without (cpu, mode) (node_cpu_seconds_total)",
    "quantile by (mode) (0.5, node_cpu_seconds_total)",
    "topk(3, node_cpu_seconds_total)",
    "bottomk(2, node_filesystem_size_bytes)",
    'count_values("version", prometheus_build_info)',
    "sum(up)",
    "count(count by (__name__) ({__name__!=''}))",
]

BINARY = [
    "1 - avg by (instance) (rate(node_cpu_seconds_total{mode='idle'}[12s]))",
    "node_memory_MemTotal_bytes - node_memory_MemAvailable_bytes",
    "node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes * 100",
    "node_filesystem_avail_bytes / node_filesystem_size_bytes < 0.9",
    "node_load1 > bool 0.1",
    "node_load1 >= node_load5",
    "node_cpu_seconds_total * on (cpu, instance) group_left sum by (cpu, instance) (node_cpu_seconds_total)",
    "sum by (mode) (node_cpu_seconds_total) / ignoring (mode) group_left sum(node_cpu_seconds_total)",
    "up and on (instance) node_load1",
    "up or node_load1",
    "up unless on (instance) node_load1",
    "node_load1 ^ 2 % 3",
    "-node_load1",
    "sum by (instance) (node_load1) atan2 sum by (instance) (node_load5)",
    "2 * 3 + 4 ^ 0.5",
    "node_load1 == 1 or vector(7)",
]

FUNCTIONS = [
    *(
        f"{f}(node_load1)"
        for f in ("abs", "ceil", "floor", "exp", "ln", "log2", "log10", "sqrt", "sgn", "sin", "cos", "deg", "rad")
    ),
    "round(node_load1, 0.1)",
    "clamp(node_load1, 0.2, 0.4)",
    "clamp_min(node_load1, 1)",
    "clamp_max(node_load1, 0.1)",
    "scalar(node_load1)",
    "vector(time())",
    "time() - node_boot_time_seconds",
    "timestamp(up)",
    "hour(node_boot_time_seconds)",
    "day_of_week()",
    "days_in_month(vector(1709210000))",
    "absent(nothing_of_that_name{job='x'})",
    'label_replace(up, "host", "$1", "instance", "(.*):.*")',
    'label_join(up, "both", "-", "job", "instance")',
    "histogram_quantile(0.9, sum by (le, handler) (rate(prometheus_http_request_duration_seconds_bucket[16s])))",
    "histogram_quantile(0.5, prometheus_http_request_duration_seconds_bucket)",
    "sort_desc(node_filesystem_size_bytes)",
]

TIME_SHIFTS = [
    "node_load1 offset 5s",
    "rate(node_cpu_seconds_total{cpu='0'}[10s] offset 4s)",
    "max_over_time(rate(prometheus_tsdb_head_samples_appended_total[10s])[15s:3s])",
    "avg_over_time(sum(up)[12s:2s])",
    "node_load1 @ end()",
    "sum(rate(node_cpu_seconds_total[9s] @ start()))",
]

QUERIES = [*SELECTORS, *RATES, *OVER_TIME, *AGGREGATIONS, *BINARY, *FUNCTIONS, *TIME_SHIFTS]
