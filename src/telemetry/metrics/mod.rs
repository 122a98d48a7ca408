//! Every metric, in one struct, in a registry of its own. To add one: declare it in [`Metrics`],
//! make it in [`Metrics::new`], and accept the new list in the test below.
//!
//! Observing is an atomic or two: children are resolved once and kept, in an array by label
//! ([`Counters`]) or in a handle ([`RouteMetrics`], [`PeerMetrics`], [`LoopMetrics`]).

mod handles;
mod labels;
mod process;

pub use handles::{Counters, Gauges, LeaseMetrics, LoopMetrics, PeerMetrics, RouteMetrics};
pub use labels::{
    Breaker, Bucket, Certificate, ForwardOutcome, Label, LeaseAnswer, Pool, PoolState, QueueState,
    RateDecision, Role, Route, Schema, SessionSource, SpanOutcome, TickOutcome, Verdict,
    WaitOutcome,
};

use super::Telemetry;
use crate::vocab::{Epoch, Region};
use labels::PoolLabel;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};
use std::{sync::atomic::Ordering, time::Duration};
use tracing_appender::non_blocking::ErrorCounter;

/// From half a millisecond, a read from memory, to the ten seconds a request may take.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 10.0];

/// All that this process counts. Shared by reference.
pub struct Metrics {
    registry: Registry,
    telemetry: Telemetry,
    http_requests: IntCounterVec,
    http_seconds: HistogramVec,
    /// Requests being answered now.
    pub http_in_flight: IntGauge,
    /// How requests were answered, as `Godwit-Route` says it, and refusals.
    pub routes: Counters<Route>,
    /// Rate-limit decisions by bucket, verdict and who decided.
    pub rate_limits: Counters<RateDecision>,
    pub people: People,
    /// Time that reads spent waiting for their bookmark.
    pub bookmark_wait_seconds: Histogram,
    pub bookmark_waits: Counters<WaitOutcome>,
    /// Requests that were told that a failover lost their bookmark.
    pub bookmarks_lost: IntCounter,
    /// Writes answered from the journal.
    pub idempotent_replays: IntCounter,
    lag_seconds: GaugeVec,
    lag_bytes: IntGaugeVec,
    epoch: IntGauge,
    roles: Gauges<Role>,
    forward_seconds: HistogramVec,
    forwards: IntCounterVec,
    breaker: IntGaugeVec,
    peer_reachable: IntGaugeVec,
    lease: Lease,
    database: Database,
    certificates: IntGaugeVec,
    pub queue_depth: Gauges<QueueState>,
    loop_ticks: IntCounterVec,
    loop_seconds: HistogramVec,
    loop_restarts: IntCounterVec,
    loop_last_success: GaugeVec,
    log_lines_dropped: IntCounter,
    spans: Counters<SpanOutcome>,
    resident_bytes: IntGauge,
    open_fds: IntGauge,
}

/// Registers each metric as it is made. A name clash is a broken invariant of this file.
struct Maker<'a> {
    registry: &'a Registry,
    region: &'a Region,
}

impl Maker<'_> {
    fn put<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let metric = made.expect("a metric of this file has a valid name");
        self.registry.register(Box::new(metric.clone())).expect("metric names are unique");
        metric
    }
    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.put(IntCounter::new(name, help))
    }
    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.put(IntCounterVec::new(Opts::new(name, help), labels))
    }
    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.put(IntGauge::new(name, help))
    }
    fn float_gauge(&self, name: &str, help: &str) -> Gauge {
        self.put(Gauge::new(name, help))
    }
    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.put(IntGaugeVec::new(Opts::new(name, help), labels))
    }
    fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.put(GaugeVec::new(Opts::new(name, help), labels))
    }
    fn seconds(&self, name: &str, help: &str) -> Histogram {
        self.put(Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec())))
    }
    fn seconds_by(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        self.put(HistogramVec::new(
            HistogramOpts::new(name, help).buckets(SECONDS.to_vec()),
            labels,
        ))
    }
    fn by<L: Label>(&self, name: &str, help: &str) -> Counters<L> {
        Counters::new(&self.counters(name, help, L::NAMES))
    }
    fn gauges_by<L: Label>(&self, name: &str, help: &str) -> Gauges<L> {
        Gauges::new(&self.gauges(name, help, L::NAMES))
    }
    /// With this region as a constant label.
    fn local_requests(&self) -> (IntCounterVec, HistogramVec) {
        let count = Opts::new("godwit_http_requests_total", "Requests answered.")
            .const_label("region", self.region.as_str());
        let seconds =
            HistogramOpts::new("godwit_http_request_seconds", "Time to answer a request.")
                .const_label("region", self.region.as_str())
                .buckets(SECONDS.to_vec());
        (
            self.put(IntCounterVec::new(count, &["route", "method", "status"])),
            self.put(HistogramVec::new(seconds, &["route"])),
        )
    }
    fn certificates(&self) -> IntGaugeVec {
        self.gauges(
            "godwit_certificate_expiry_timestamp_seconds",
            "When the certificate that is shown to other regions ends.",
            Certificate::NAMES,
        )
    }
    fn build_info(&self) {
        let opts = Opts::new("godwit_build_info", "Always 1; the version is in the label.")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        self.put(IntGauge::with_opts(opts)).set(1);
    }
}

/// The right to take writes, and to be read.
struct Lease {
    answers: IntCounterVec,
    seconds: Gauge,
    quarantined: IntGauge,
}

impl Lease {
    fn new(make: &Maker<'_>) -> Self {
        Self {
            answers: make.counters(
                "godwit_lease_answers_total",
                "What a region answered when this one, the primary, asked it for the lease.",
                &["peer", "outcome"],
            ),
            seconds: make.float_gauge(
                "godwit_lease_seconds",
                "How long this process may still take writes without a further grant; 0 when it may not.",
            ),
            quarantined: make.gauge(
                "godwit_quarantined",
                "1 while this region's data is not served because it may not be the cluster's.",
            ),
        }
    }
}

/// Of this region's database, as this process uses it.
struct Database {
    pools: Gauges<PoolLabel>,
    pools_max: Gauges<Pool>,
    schema: Gauges<Schema>,
}

impl Database {
    fn new(make: &Maker<'_>) -> Self {
        Self {
            pools: make.gauges_by("godwit_db_pool_connections", "Database connections."),
            pools_max: make
                .gauges_by("godwit_db_pool_connections_max", "Most connections that a pool opens."),
            schema: make.gauges_by(
                "godwit_schema",
                "1 for how the schema here stands to what this program needs.",
            ),
        }
    }
}

/// Of people who are signed in, or try.
pub struct People {
    /// Where sessions were found.
    pub session_lookups: Counters<SessionSource>,
    /// Sessions of which something is owed to the primary.
    pub sessions_owed: IntGauge,
    /// Guesses that a peer was never told of: it was away for too long, or there were too many.
    pub guesses_untold: IntCounter,
}

impl People {
    fn new(make: &Maker<'_>) -> Self {
        Self {
            session_lookups: make.by("godwit_session_lookups_total", "Where sessions were found."),
            sessions_owed: make.gauge(
                "godwit_sessions_owed",
                "Sessions of which something is owed to the primary.",
            ),
            guesses_untold: make.counter(
                "godwit_guesses_untold_total",
                "Wrong passwords that another region was not told of: too many, or too old when it answered.",
            ),
        }
    }
}

impl Metrics {
    /// # Panics
    /// When two metrics of this file have one name.
    #[must_use]
    pub fn new(region: &Region, telemetry: &Telemetry) -> Self {
        let registry = Registry::new();
        let make = Maker { registry: &registry, region };
        let (http_requests, http_seconds) = make.local_requests();
        make.build_info();
        Self {
            http_requests,
            http_seconds,
            http_in_flight: make
                .gauge("godwit_http_requests_in_flight", "Requests being answered now."),
            routes: make.by("godwit_routing_decisions_total", "How requests were answered."),
            rate_limits: make.by("godwit_rate_limit_decisions_total", "Rate-limit decisions."),
            bookmark_wait_seconds: make
                .seconds("godwit_bookmark_wait_seconds", "Time spent waiting for a bookmark."),
            bookmark_waits: make
                .by("godwit_bookmark_waits_total", "How waits for a bookmark ended."),
            bookmarks_lost: make
                .counter("godwit_bookmarks_lost_total", "Bookmarks that a failover lost."),
            idempotent_replays: make
                .counter("godwit_idempotent_replays_total", "Writes answered from the journal."),
            lag_seconds: make.float_gauges(
                "godwit_replication_lag_seconds",
                "Upper bound of how old the region's local data is; absent while unknown.",
                &["region"],
            ),
            lag_bytes: make.gauges(
                "godwit_replication_lag_bytes",
                "Log the region has yet to replay; absent while unknown.",
                &["region"],
            ),
            epoch: make.gauge(
                "godwit_epoch",
                "The highest epoch this process knows; 0 before it knows one.",
            ),
            roles: make.gauges_by("godwit_region_role", "1 for the role this region has now."),
            forward_seconds: make.seconds_by(
                "godwit_forward_seconds",
                "Time of a hop to a peer.",
                &["peer"],
            ),
            forwards: make.counters(
                "godwit_forwards_total",
                "Hops to a peer.",
                &["peer", "outcome"],
            ),
            breaker: make.gauges(
                "godwit_breaker_state",
                "0 closed, 1 half open, 2 open.",
                &["peer"],
            ),
            peer_reachable: make.gauges(
                "godwit_peer_reachable",
                "Whether the peer answers probes.",
                &["peer"],
            ),
            lease: Lease::new(&make),
            people: People::new(&make),
            database: Database::new(&make),
            certificates: make.certificates(),
            queue_depth: make.gauges_by("godwit_queue_depth", "Writes owed to the primary."),
            loop_ticks: make.counters(
                "godwit_loop_ticks_total",
                "Passes of background loops.",
                &["loop", "outcome"],
            ),
            loop_seconds: make.seconds_by("godwit_loop_tick_seconds", "Time of a pass.", &["loop"]),
            loop_restarts: make.counters(
                "godwit_loop_restarts_total",
                "Restarts after a panic.",
                &["loop"],
            ),
            loop_last_success: make.float_gauges(
                "godwit_loop_last_success_timestamp_seconds",
                "When a pass last ended well; absent before the first.",
                &["loop"],
            ),
            log_lines_dropped: make
                .counter("godwit_log_lines_dropped_total", "Log lines nobody read in time."),
            spans: make.by("godwit_spans_exported_total", "Trace spans sent to the collector."),
            // The names every dashboard knows (Prometheus client guidelines, "process metrics").
            resident_bytes: make
                .gauge("process_resident_memory_bytes", "Resident memory size in bytes."),
            open_fds: make.gauge("process_open_fds", "Number of open file descriptors."),
            telemetry: telemetry.clone(),
            registry,
        }
    }

    /// For one route and method, to be kept with the route. The answers named by `statuses` are
    /// counted from zero; others appear with their first.
    #[must_use]
    pub fn route(
        &self,
        route: &'static str,
        method: &'static str,
        statuses: &[u16],
    ) -> RouteMetrics {
        let seconds = self.http_seconds.with_label_values(&[route]);
        RouteMetrics::new(self.http_requests.clone(), seconds, route, method, statuses)
    }

    /// For one peer, to be kept with its connection.
    #[must_use]
    pub fn peer(&self, peer: &Region) -> PeerMetrics {
        PeerMetrics::new(
            &self.forward_seconds,
            &self.forwards,
            &self.breaker,
            &self.peer_reachable,
            peer,
        )
    }

    /// For one region that grants the lease, to be kept by who asks it.
    #[must_use]
    pub fn lease(&self, peer: &Region) -> LeaseMetrics {
        LeaseMetrics::new(&self.lease.answers, peer)
    }

    /// What is left of the lease.
    pub fn set_lease(&self, left: Duration) {
        self.lease.seconds.set(left.as_secs_f64());
    }

    pub fn set_quarantined(&self, quarantined: bool) {
        self.lease.quarantined.set(i64::from(quarantined));
    }

    /// For one background loop, to be kept by its driver.
    #[must_use]
    pub fn background(&self, name: &'static str) -> LoopMetrics {
        LoopMetrics::new(
            &self.loop_ticks,
            &self.loop_seconds,
            &self.loop_restarts,
            &self.loop_last_success,
            name,
        )
    }

    /// A region's lag; what is unknown is absent rather than zero.
    pub fn set_lag(&self, region: &Region, age: Option<Duration>, bytes: Option<u64>) {
        let label = [region.as_str()];
        match age {
            Some(age) => self.lag_seconds.with_label_values(&label).set(age.as_secs_f64()),
            None => drop(self.lag_seconds.remove_label_values(&label)),
        }
        match bytes {
            Some(bytes) => self
                .lag_bytes
                .with_label_values(&label)
                .set(i64::try_from(bytes).unwrap_or(i64::MAX)),
            None => drop(self.lag_bytes.remove_label_values(&label)),
        }
    }

    pub fn set_epoch(&self, epoch: Epoch) {
        self.epoch.set(epoch.to_stored());
    }

    pub fn set_role(&self, now: Role) {
        for role in Role::ALL {
            self.roles.of(*role).set(i64::from(*role == now));
        }
    }

    pub fn set_pool(&self, pool: Pool, idle: u64, busy: u64, max: u64) {
        for (state, count) in [(PoolState::Idle, idle), (PoolState::Busy, busy)] {
            self.database
                .pools
                .of(PoolLabel(pool, state))
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.database.pools_max.of(pool).set(i64::try_from(max).unwrap_or(i64::MAX));
    }

    pub fn set_schema(&self, schema: Schema) {
        for &other in Schema::ALL {
            self.database.schema.of(other).set(i64::from(other == schema));
        }
    }

    /// `ends_at` is in seconds since 1970.
    pub fn set_certificate(&self, certificate: Certificate, ends_at: u64) {
        let gauge = self.certificates.with_label_values(&certificate.values());
        gauge.set(i64::try_from(ends_at).unwrap_or(i64::MAX));
    }

    /// The exposition text (Prometheus text format 0.0.4).
    #[must_use]
    pub fn encode(&self) -> String {
        self.refresh();
        let mut text = String::new();
        // Fails only for a metric without a name, which `new` would not have registered.
        TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text).ok();
        text
    }

    fn refresh(&self) {
        let advance =
            |counter: &IntCounter, to: u64| counter.inc_by(to.saturating_sub(counter.get()));
        let dropped = self.telemetry.lines_dropped.as_ref().map_or(0, ErrorCounter::dropped_lines);
        advance(&self.log_lines_dropped, u64::try_from(dropped).unwrap_or(u64::MAX));
        let spans = &self.telemetry.spans;
        advance(self.spans.of(SpanOutcome::Exported), spans.exported.load(Ordering::Relaxed));
        advance(self.spans.of(SpanOutcome::Failed), spans.failed.load(Ordering::Relaxed));
        if let Some(bytes) = process::resident_bytes() {
            self.resident_bytes.set(bytes);
        }
        if let Some(count) = process::open_fds() {
            self.open_fds.set(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        Metrics::new(&"eu-west-1".parse().unwrap(), &Telemetry::off())
    }

    #[test]
    fn the_names_and_labels_are_the_agreed_ones() {
        let metrics = metrics();
        let peer: Region = "us-east-1".parse().unwrap();
        let _peer = metrics.peer(&peer);
        let _lease = metrics.lease(&peer);
        metrics.background("watcher").ended(
            TickOutcome::Idle,
            Duration::ZERO,
            chrono::DateTime::UNIX_EPOCH,
        );
        metrics.route("/v1/collections", "GET", &[200]).observe(200, Duration::from_millis(1));
        metrics.set_lag(&peer, Some(Duration::from_millis(40)), Some(0));
        metrics.set_certificate(Certificate::Peer, 1);
        let mut names: Vec<_> = metrics
            .registry
            .gather()
            .iter()
            .map(|family| {
                let labels = family.get_metric()[0].get_label();
                let labels: Vec<_> =
                    labels.iter().map(prometheus::proto::LabelPair::name).collect();
                format!("{}{{{}}}", family.name(), labels.join(","))
            })
            .collect();
        names.sort();
        insta::assert_snapshot!(names.join("\n"), @r"
        godwit_bookmark_wait_seconds{}
        godwit_bookmark_waits_total{outcome}
        godwit_bookmarks_lost_total{}
        godwit_breaker_state{peer}
        godwit_build_info{version}
        godwit_certificate_expiry_timestamp_seconds{certificate}
        godwit_db_pool_connections_max{pool}
        godwit_db_pool_connections{pool,state}
        godwit_epoch{}
        godwit_forward_seconds{peer}
        godwit_forwards_total{outcome,peer}
        godwit_guesses_untold_total{}
        godwit_http_request_seconds{region,route}
        godwit_http_requests_in_flight{}
        godwit_http_requests_total{method,region,route,status}
        godwit_idempotent_replays_total{}
        godwit_lease_answers_total{outcome,peer}
        godwit_lease_seconds{}
        godwit_log_lines_dropped_total{}
        godwit_loop_last_success_timestamp_seconds{loop}
        godwit_loop_restarts_total{loop}
        godwit_loop_tick_seconds{loop}
        godwit_loop_ticks_total{loop,outcome}
        godwit_peer_reachable{peer}
        godwit_quarantined{}
        godwit_queue_depth{state}
        godwit_rate_limit_decisions_total{bucket,source,verdict}
        godwit_region_role{role}
        godwit_replication_lag_bytes{region}
        godwit_replication_lag_seconds{region}
        godwit_routing_decisions_total{decision}
        godwit_schema{standing}
        godwit_session_lookups_total{where}
        godwit_sessions_owed{}
        godwit_spans_exported_total{outcome}
        process_open_fds{}
        process_resident_memory_bytes{}
        ");
    }

    #[test]
    fn counts_from_zero_and_what_is_unknown_is_absent() {
        let metrics = metrics();
        let _route = metrics.route("/v1/collections", "GET", &[200, 401]);
        let text = metrics.encode();
        assert!(text.contains(
            r#"godwit_http_requests_total{method="GET",region="eu-west-1",route="/v1/collections",status="401"} 0"#
        ));
        assert!(text.contains("godwit_bookmarks_lost_total 0"));
        assert!(text.contains(r#"godwit_rate_limit_decisions_total{bucket="credential",source="local",verdict="refused"} 0"#));
        assert!(!text.contains("godwit_replication_lag_seconds{"));
    }

    #[test]
    fn lag_that_is_no_longer_known_goes_away() {
        let (metrics, peer) = (metrics(), "us-east-1".parse().unwrap());
        metrics.set_lag(&peer, Some(Duration::from_millis(1_500)), Some(7));
        let text = metrics.encode();
        assert!(text.contains(r#"godwit_replication_lag_seconds{region="us-east-1"} 1.5"#));
        assert!(text.contains(r#"godwit_replication_lag_bytes{region="us-east-1"} 7"#));
        metrics.set_lag(&peer, None, None);
        assert!(!metrics.encode().contains("us-east-1"));
    }

    #[test]
    fn one_role_at_a_time() {
        let metrics = metrics();
        metrics.set_role(Role::Replica);
        metrics.set_role(Role::Primary);
        let text = metrics.encode();
        assert!(text.contains(r#"godwit_region_role{role="primary"} 1"#));
        assert!(text.contains(r#"godwit_region_role{role="replica"} 0"#));
    }

    #[test]
    fn one_schema_at_a_time_and_a_certificate_only_where_there_is_one() {
        let metrics = metrics();
        assert!(!metrics.encode().contains("godwit_certificate"));
        metrics.set_schema(Schema::Unknown);
        metrics.set_schema(Schema::Old);
        metrics.set_certificate(Certificate::Internal, 1_800_000_000);
        metrics.set_pool(Pool::Read, 1, 2, 16);
        let text = metrics.encode();
        for line in [
            r#"godwit_schema{standing="old"} 1"#,
            r#"godwit_schema{standing="unknown"} 0"#,
            r#"godwit_certificate_expiry_timestamp_seconds{certificate="internal"} 1800000000"#,
            r#"godwit_db_pool_connections_max{pool="read"} 16"#,
        ] {
            assert!(text.contains(line), "{line}");
        }
    }

    #[test]
    fn any_status_is_counted_under_its_own_name() {
        let metrics = metrics();
        let route = metrics.route("unknown", "other", &[404]);
        for status in [404, 404, 418, 200, 99, 1_000] {
            route.observe(status, Duration::from_micros(700));
        }
        let text = metrics.encode();
        for (status, count) in [("404", 2), ("418", 1), ("200", 1), ("99", 1), ("1000", 1)] {
            let line = format!(
                r#"godwit_http_requests_total{{method="other",region="eu-west-1",route="unknown",status="{status}"}} {count}"#
            );
            assert!(text.contains(&line), "{line}");
        }
        assert!(text.contains(
            r#"godwit_http_request_seconds_bucket{region="eu-west-1",route="unknown",le="0.001"} 6"#
        ));
    }

    #[test]
    fn the_process_knows_its_own_size() {
        let text = metrics().encode();
        for name in ["process_resident_memory_bytes ", "process_open_fds "] {
            let value = text.lines().find_map(|l| l.strip_prefix(name)).unwrap();
            assert!(
                !cfg!(target_os = "linux") || value.parse::<f64>().unwrap() > 0.0,
                "{name}{value}"
            );
        }
    }
}
