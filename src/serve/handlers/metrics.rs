//! `/metrics`: the counters in the text format of Prometheus.

use crate::serve::access_log::Metrics;
use crate::serve::http::reply::text;
use crate::serve::http::response::ResponseBody;
use hyper::Response;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

pub fn respond(metrics: &Metrics) -> Response<ResponseBody> {
    text("text/plain; version=0.0.4; charset=utf-8", prometheus_text(metrics))
}

fn prometheus_text(metrics: &Metrics) -> String {
    let mut out = String::new();
    let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let header = |out: &mut String, name: &str, kind: &str, help: &str| {
        let _ = writeln!(out, "# HELP imgmv_{name} {help}\n# TYPE imgmv_{name} {kind}");
    };
    header(&mut out, "build_info", "gauge", "The version of this server.");
    let _ = writeln!(out, "imgmv_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    header(&mut out, "http_requests_total", "counter", "Answered requests, by the first digit of the status.");
    for (at, responses) in metrics.responses.iter().enumerate() {
        let _ = writeln!(out, "imgmv_http_requests_total{{class=\"{}xx\"}} {}", at + 1, value(responses));
    }
    for (name, kind, help, counter) in [
        ("http_reads_total", "counter", "Requests with GET or HEAD.", &metrics.reads),
        ("http_writes_total", "counter", "Requests with any other method.", &metrics.writes),
        ("http_sent_bytes_total", "counter", "Bytes of response bodies.", &metrics.sent),
        ("http_received_bytes_total", "counter", "Bytes of request bodies.", &metrics.received),
        ("http_broken_total", "counter", "Responses that were not sent completely.", &metrics.incomplete),
        ("http_requests_in_flight", "gauge", "Requests in flight.", &metrics.in_flight),
        ("connections_total", "counter", "Accepted connections.", &metrics.accepted),
        ("connections", "gauge", "Open connections.", &metrics.connections),
        ("blobs_pushed_total", "counter", "Pushed blobs.", &metrics.blobs_pushed),
        ("blobs_mounted_total", "counter", "Mounted blobs.", &metrics.blobs_mounted),
        ("manifests_pushed_total", "counter", "Pushed manifests.", &metrics.manifests_pushed),
        ("mirror_blobs_fetched_total", "counter", "Blobs downloaded into the mirror's cache.", &metrics.downloaded),
        ("mirror_fetched_bytes_total", "counter", "Bytes of the downloaded blobs.", &metrics.downloaded_bytes),
        ("mirror_peer_finds_total", "counter", "Blobs and manifests found at a peer.", &metrics.peer_hits),
        ("mirror_blobs_had_total", "counter", "Blobs served from the cache.", &metrics.cache_hits),
        ("mirror_last_known_total", "counter", "Tags answered with the last known digest.", &metrics.stale_tags),
        ("mirror_evicted_bytes_total", "counter", "Bytes evicted from the cache.", &metrics.evicted_bytes),
    ] {
        header(&mut out, name, kind, help);
        let _ = writeln!(out, "imgmv_{name} {}", value(counter));
    }
    out
}
