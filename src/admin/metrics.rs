//! The metrics: a snapshot of the board at the moment of the scrape, in the text format of Prometheus.

use super::feed::Seen;
use super::process;
use super::status::Health;
use crate::agent::monitor::board::{Board, LATENESS_BOUNDS, Moment, View};
use crate::flow::{FeedId, Time};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};
use std::collections::BTreeMap;

/// What the content of a scrape is.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// A metric as it is documented in `docs/METRICS.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    name: &'static str,
    kind: Kind,
    labels: &'static str,
    unit: &'static str,
    help: &'static str,
    /// What to alert on; empty where the metric is for looking at.
    alert: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

const FEED: &str = "account, stream";

macro_rules! metrics {
    ($($id:ident: $kind:ident $name:literal [$labels:expr] $unit:literal, $help:literal, $alert:literal;)*) => {
        $(const $id: Named = Named {
            name: $name, kind: Kind::$kind, labels: $labels, unit: $unit, help: $help, alert: $alert,
        };)*
        /// Every metric there is.
        #[cfg(test)]
        const METRICS: &[Named] = &[$($id),*];
    };
}

metrics! {
    READY: Gauge "opship_ready" [""] "1 or 0", "1 when every feed had a good tick lately or stands by, as /readyz", "0 for 15 minutes";
    FEED_READY: Gauge "opship_feed_ready" [FEED] "1 or 0", "1 when the feed had a good tick lately or stands by", "0 for 15 minutes";
    FEED_STATE: Gauge "opship_feed_state" ["account, stream, state"] "1 or 0", "1 for the state that the feed is in, 0 for the others", "state \"broken\" is 1: a person is needed";
    LAG: Gauge "opship_lag_seconds" [FEED] "seconds", "For so long the table may lack events: time since 1Password was last asked in a complete tick, whatever the clocks say; absent before the first", "above 900: alerts on the table are late";
    NEWEST: Gauge "opship_newest_shipped_timestamp_seconds" [FEED] "seconds since 1970", "Timestamp of the newest event that the destination has accepted", "";
    LAST_GOOD: Gauge "opship_last_good_tick_timestamp_seconds" [FEED] "seconds since 1970", "When the last good tick ended; absent before the first", "older than 900 s";
    LATENESS: Histogram "opship_event_lateness_seconds" [FEED] "seconds", "How long after its timestamp an event was accepted; events of a first read of old ones are not in it", "";
    ROWS: Counter "opship_shipped_rows_total" [FEED] "rows", "Rows that the destination has accepted", "no increase in a day where there always was one";
    LATE: Counter "opship_shipped_late_rows_total" [FEED] "rows", "Of these, rows that a bare five-minute window would have missed", "";
    BATCHES: Counter "opship_shipped_batches_total" [FEED] "batches", "Batches that the destination has accepted", "";
    BYTES: Counter "opship_shipped_bytes_total" [FEED] "bytes", "Bytes of these batches before compression", "a price: Log Analytics bills by the byte";
    PAGES: Counter "opship_read_pages_total" [FEED] "pages", "Pages read from 1Password", "";
    PAGE_BYTES: Counter "opship_read_bytes_total" [FEED] "bytes", "Bytes of these pages after decompression", "";
    KNOWN: Counter "opship_known_events_total" [FEED] "events", "Events read again and dropped, because they were shipped before: the price of the sweeps", "";
    TICKS: Counter "opship_ticks_total" ["account, stream, result"] "ticks", "Ticks by result: good, failed, or skipped because the one before took longer", "result \"failed\" rises for 15 minutes";
    FAILURES: Counter "opship_request_failures_total" ["account, stream, edge"] "requests", "Requests to source, sink or store that failed; most are tried again at once", "";
    THROTTLES: Counter "opship_throttles_total" ["account, stream, edge"] "requests", "Of these, requests that were answered 429", "rises for an hour: ask the service for more, or tick less often";
    DOUBT_BATCHES: Counter "opship_in_doubt_batches_total" [FEED] "batches", "POSTs that may have been accepted although no answer said so; `opship checkpoint show` names the batches", "";
    DOUBT_ROWS: Counter "opship_in_doubt_rows_total" [FEED] "rows", "Rows of these: the most that can be in the table twice", "a jump: duplicates may follow";
    DOUBT_GONE: Counter "opship_in_doubt_gone_events_total" [FEED] "events", "Events of batches in doubt that the source no longer returned, since the checkpoint was created: they may be missing", "any increase";
    DEAD: Counter "opship_dead_letters_total" [FEED] "events", "Events that could not be shipped whole: a stub was, the original is a dead letter", "any increase";
    INTENT: Gauge "opship_open_intent_rows" [FEED] "rows", "Rows of the batch that is being delivered or in doubt", "above 0 for an hour: a batch does not get through";
    SEGMENTS: Gauge "opship_ledger_segments" [FEED] "segments", "Hours of the ledger in the store", "";
    IDS: Gauge "opship_ledger_cached_ids" [FEED] "ids", "Ids of the ledger in memory, 16 bytes each and their table", "";
    BUDGET: Gauge "opship_request_budget_left" ["account, window"] "requests", "Requests to 1Password that may be sent without waiting, of 600 a minute and 30,000 an hour", "window \"hour\" below 1000: feeds will wait";
    EXPIRY: Gauge "opship_token_expiry_seconds" ["account"] "seconds", "Until the 1Password token expires, negative afterwards; absent where the token names no date", "below 1209600 (14 days): issue a new one";
    REFUSED: Counter "opship_refused_health_rows_total" ["account"] "rows", "Heartbeats and trouble rows that the destination did not accept; the account waits, and is not ready, from the first 401 or 403 on, or from the second refusal in a row", "rises for 15 minutes";
    BUILD: Gauge "opship_build_info" ["version"] "1", "Always 1; the version stands in the label", "";
    START: Gauge "process_start_time_seconds" [""] "seconds since 1970", "When the process started", "changes often: it crashes or is restarted";
    CPU: Counter "process_cpu_seconds_total" [""] "seconds", "Processor time used, Linux only", "";
    MEMORY: Gauge "process_resident_memory_bytes" [""] "bytes", "Memory in use, Linux only", "above 250 MB";
    FDS: Gauge "process_open_fds" [""] "descriptors", "Open file descriptors, Linux only", "near process_max_fds";
    FDS_MAX: Gauge "process_max_fds" [""] "descriptors", "How many file descriptors the process may open, Linux only", "";
}

const STATES: [(Health, &str); 7] = [
    (Health::Good, "good"),
    (Health::Starting, "starting"),
    (Health::CatchingUp, "catching-up"),
    (Health::Standby, "standby"),
    (Health::Waiting, "waiting"),
    (Health::Broken, "broken"),
    (Health::Stopped, "stopped"),
];

/// The text of a scrape.
pub fn scrape(board: &Board) -> Vec<u8> {
    let mut text = Vec::new();
    // Fails for a family without samples, and there is none; memory takes every write.
    let _ = TextEncoder::new().encode(&families(board, Moment::now()), &mut text);
    text
}

/// Samples by metric, in the order of their names.
#[derive(Default)]
struct Samples(BTreeMap<Named, Vec<Metric>>);

impl Samples {
    fn put(&mut self, metric: Named, labels: &[(&str, &str)], value: f64) {
        let mut sample = labelled(labels);
        match metric.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                sample.set_counter(counter);
            }
            Kind::Gauge | Kind::Histogram => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                sample.set_gauge(gauge);
            }
        }
        self.0.entry(metric).or_default().push(sample);
    }

    fn put_time(&mut self, metric: Named, labels: &[(&str, &str)], time: Option<Time>) {
        if let Some(time) = time {
            self.put(metric, labels, time.timestamp_millis() as f64 / 1000.0);
        }
    }
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).into());
        pair.set_value((*value).into());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

fn families(board: &Board, now: Moment) -> Vec<MetricFamily> {
    let mut samples = Samples::default();
    let obstacle = board.obstacle();
    let mut ready = true;
    let (mut expiries, mut refused) = (BTreeMap::<&str, Time>::new(), BTreeMap::<&str, u64>::new());
    for (id, view) in board.views() {
        let seen = Seen { id, view: &view, board, obstacle: obstacle.as_ref(), now };
        ready &= seen.not_ready().is_none();
        of_state(&mut samples, &seen);
        of_flow(&mut samples, id, &view);
        of_doubt(&mut samples, id, &view);
        refused.insert(id.account.as_str(), view.account.rows_refused);
        expiries.extend(view.token_expires.map(|expires| (id.account.as_str(), expires)));
    }
    for (account, expires) in expiries {
        samples.put(EXPIRY, &[("account", account)], (expires - now.at).num_seconds() as f64);
    }
    for (account, rows) in refused {
        samples.put(REFUSED, &[("account", account)], rows as f64);
    }
    for (account, left) in board.budgets() {
        for (window, left) in [("minute", left.minute), ("hour", left.hour)] {
            samples.put(BUDGET, &[("account", account.as_str()), ("window", window)], f64::from(left));
        }
    }
    samples.put(READY, &[], f64::from(ready));
    samples.put(BUILD, &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    samples.put_time(START, &[], Some(board.started.at));
    let used = process::used();
    for (metric, value) in
        [(CPU, used.cpu_seconds), (MEMORY, used.memory_bytes), (FDS, used.fds), (FDS_MAX, used.fds_max)]
    {
        if let Some(value) = value {
            samples.put(metric, &[], value);
        }
    }
    samples.0.into_iter().map(family).collect()
}

fn family((metric, samples): (Named, Vec<Metric>)) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(metric.name.into());
    family.set_help(metric.help.into());
    family.set_field_type(match metric.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram => MetricType::HISTOGRAM,
    });
    family.set_metric(samples);
    family
}

fn labels(id: &FeedId) -> [(&'static str, &str); 2] {
    [("account", id.account.as_str()), ("stream", id.stream.as_str())]
}

fn with<'a>(id: &'a FeedId, name: &'static str, value: &'a str) -> [(&'static str, &'a str); 3] {
    let [account, stream] = labels(id);
    [account, stream, (name, value)]
}

fn of_state(samples: &mut Samples, seen: &Seen<'_>) {
    let (id, view, health) = (seen.id, seen.view, seen.health());
    samples.put(FEED_READY, &labels(id), f64::from(seen.not_ready().is_none()));
    for (state, name) in STATES {
        samples.put(FEED_STATE, &with(id, "state", name), f64::from(state == health));
    }
    if let Some(covered) = view.covered {
        samples.put(LAG, &labels(id), covered.age(seen.now).as_secs_f64());
    }
    samples.put_time(NEWEST, &labels(id), view.newest_shipped);
    samples.put_time(LAST_GOOD, &labels(id), view.last_good.map(|good| good.shown(seen.now)));
}

fn of_flow(samples: &mut Samples, id: &FeedId, view: &View) {
    let counts = &view.counts;
    let plain = [
        (ROWS, counts.rows),
        (LATE, counts.late_rows),
        (BATCHES, counts.batches),
        (BYTES, counts.body_bytes),
        (PAGES, counts.pages),
        (PAGE_BYTES, counts.page_bytes),
        (KNOWN, counts.known),
        (DEAD, counts.dead_letters),
        (SEGMENTS, view.ledger.segments),
        (IDS, view.ledger.ids),
    ];
    for (metric, value) in plain {
        samples.put(metric, &labels(id), value as f64);
    }
    let ticks = [("good", counts.ticks_good), ("failed", counts.ticks_failed), ("skipped", counts.ticks_skipped)];
    for (result, count) in ticks {
        samples.put(TICKS, &with(id, "result", result), count as f64);
    }
    // All of them from the start: a counter that appears with its first failure has no increase to alert on.
    for edge in ["source", "sink", "store"] {
        for (metric, counted) in [(FAILURES, &counts.failures), (THROTTLES, &counts.throttles)] {
            let count = counted.get(edge).copied().unwrap_or_default();
            samples.put(metric, &with(id, "edge", edge), count as f64);
        }
    }
    let mut sample = labelled(&labels(id));
    sample.set_histogram(lateness(view));
    samples.0.entry(LATENESS).or_default().push(sample);
}

fn lateness(view: &View) -> Histogram {
    let mut histogram = Histogram::default();
    let mut below = 0;
    let buckets = LATENESS_BOUNDS.iter().zip(&view.lateness).map(|(bound, count)| {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(below);
        bucket
    });
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(view.lateness.iter().sum());
    histogram.set_sample_sum(view.lateness_sum);
    histogram
}

fn of_doubt(samples: &mut Samples, id: &FeedId, view: &View) {
    let standing = view.standing.as_ref();
    let gone = standing.map_or(0, |standing| standing.in_doubt.gone);
    let open = standing.and_then(|standing| standing.intent.as_ref()).map_or(0, |intent| intent.rows as u64);
    let plain = [
        (DOUBT_BATCHES, view.counts.doubted_batches),
        (DOUBT_ROWS, view.counts.doubted_rows),
        (DOUBT_GONE, gone),
        (INTENT, open),
    ];
    for (metric, value) in plain {
        samples.put(metric, &labels(id), value as f64);
    }
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
