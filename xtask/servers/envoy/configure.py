#!/usr/bin/env python3
"""Writes Envoy's configuration: configure.py PORT UPSTREAM NETWORKS."""
import json
import sys

port, upstream, networks = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
networks = [line.strip().split("/") for line in open(networks) if line.strip()]
TYPES = "type.googleapis.com/envoy.extensions."
HTTP = TYPES + "filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = TYPES + "filters.http.router.v3.Router"
CONNECTIONS = TYPES + "resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"


def route(version, lane, match):
    header = {"header": {"key": "x-lane", "value": lane}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    return {"match": match, "route": {"cluster": version, "timeout": "30s"}, "request_headers_to_add": [header]}


def manager(gray):
    any_request = {"prefix": "/"}
    by_header = {"prefix": "/", "headers": [{"name": "x-lane", "string_match": {"exact": "gray"}}]}
    routes = [route("v2", "GRAY", any_request if gray else by_header)]
    if not gray:
        routes.append(route("v1", "PROD", any_request))
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": HTTP,
            "stat_prefix": "gray" if gray else "prod",
            "use_remote_address": True,
            "generate_request_id": False,
            "codec_type": "HTTP1",
            "common_http_protocol_options": {"idle_timeout": "300s"},
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
            "http_filters": [
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": ROUTER, "suppress_envoy_headers": True},
                }
            ],
        },
    }


def cluster(name, first):
    def endpoint(number):
        address = {"socket_address": {"address": "127.0.0.1", "port_value": number}}
        return {"endpoint": {"address": address}}

    endpoints = [{"lb_endpoints": [endpoint(first), endpoint(first + 1)]}]
    return {
        "name": name,
        "type": "STATIC",
        "lb_policy": "ROUND_ROBIN",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
    }


ranges = [{"address_prefix": address, "prefix_len": int(length)} for address, length in networks]
chains = [
    {"name": "gray", "filter_chain_match": {"source_prefix_ranges": ranges}, "filters": [manager(True)]},
    {"name": "prod", "filters": [manager(False)]},
]
listener = {
    "name": "l",
    "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
    "filter_chains": chains,
}
limit = {
    "name": "envoy.resource_monitors.global_downstream_max_connections",
    "typed_config": {"@type": CONNECTIONS, "max_active_downstream_connections": 9000},
}
print(
    json.dumps(
        {
            "static_resources": {
                "listeners": [listener],
                "clusters": [cluster("v1", upstream), cluster("v2", upstream + 2)],
            },
            "overload_manager": {"resource_monitors": [limit]},
        }
    )
)
