//! `/metrics`: the counters in the text format of Prometheus.

use crate::serve::access_log::Metrics;
use crate::serve::http::reply::text;
use crate::serve::http::response::ResponseBody;
use hyper::Response;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

pub fn respond(figures: &Metrics) -> Response<ResponseBody> {
    text("text/plain; version=0.0.4; charset=utf-8", prometheus_text(figures))
}

fn prometheus_text(figures: &Metrics) -> String {
    let mut out = String::new();
    let value = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
    let head = |out: &mut String, name: &str, kind: &str, help: &str| {
        let _ = writeln!(out, "# HELP imgmv_{name} {help}\n# TYPE imgmv_{name} {kind}");
    };
    head(&mut out, "build_info", "gauge", "The version of this server.");
    let _ = writeln!(out, "imgmv_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    head(&mut out, "http_requests_total", "counter", "Answered requests, by the first digit of the status.");
    for (at, answered) in figures.answered.iter().enumerate() {
        let _ = writeln!(out, "imgmv_http_requests_total{{class=\"{}xx\"}} {}", at + 1, value(answered));
    }
    for (name, kind, help, figure) in [
        ("http_reads_total", "counter", "Requests with GET or HEAD.", &figures.reads),
        ("http_writes_total", "counter", "Requests with any other method.", &figures.writes),
        ("http_sent_bytes_total", "counter", "Bytes of response bodies.", &figures.sent),
        ("http_received_bytes_total", "counter", "Bytes of request bodies.", &figures.received),
        ("http_broken_total", "counter", "Responses that were not sent completely.", &figures.broken),
        ("http_requests_in_flight", "gauge", "Requests in flight.", &figures.under_way),
        ("connections_total", "counter", "Accepted connections.", &figures.accepted),
        ("connections", "gauge", "Open connections.", &figures.connections),
        ("blobs_pushed_total", "counter", "Pushed blobs.", &figures.blobs_pushed),
        ("blobs_mounted_total", "counter", "Mounted blobs.", &figures.blobs_mounted),
        ("manifests_pushed_total", "counter", "Pushed manifests.", &figures.manifests_pushed),
        ("mirror_blobs_fetched_total", "counter", "Blobs downloaded into the mirror's cache.", &figures.fetched),
        ("mirror_fetched_bytes_total", "counter", "Bytes of the downloaded blobs.", &figures.fetched_bytes),
        ("mirror_peer_finds_total", "counter", "Blobs and manifests found at a peer.", &figures.found_at_peers),
        ("mirror_blobs_had_total", "counter", "Blobs served from the cache.", &figures.had),
        ("mirror_last_known_total", "counter", "Tags answered with the last known digest.", &figures.last_known),
        ("mirror_evicted_bytes_total", "counter", "Bytes evicted from the cache.", &figures.evicted_bytes),
    ] {
        head(&mut out, name, kind, help);
        let _ = writeln!(out, "imgmv_{name} {}", value(figure));
    }
    out
}
