//! What shards published, as Prometheus metric families.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto;
use prometheus::{Encoder, Registry, TextEncoder};

use super::counters::{DEFS, Id, Kind, Published};
use super::histogram::{HISTS, offset};

/// The registry of one process.
#[derive(Clone, Debug)]
pub struct Exposition {
    registry: Registry,
}

impl Exposition {
    /// Exposes the sum over shards of everything they publish.
    ///
    /// # Errors
    /// When a metric is defined twice.
    pub fn new(shards: Vec<Arc<Published>>) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        registry.register(Box::new(DataPlane::new(shards)?))?;
        Ok(Self { registry })
    }

    /// Adds a metric of the control plane.
    ///
    /// # Errors
    /// When its name is taken.
    pub fn register(&self, collector: Box<dyn Collector>) -> Result<(), prometheus::Error> {
        self.registry.register(collector)
    }

    /// The text format, version 0.0.4.
    ///
    /// # Errors
    /// When a family cannot be encoded.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut out = Vec::with_capacity(32 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        String::from_utf8(out).map_err(|e| prometheus::Error::Msg(e.to_string()))
    }
}

/// Families whose every shard is a series of its own, so that imbalance shows: name, help, kind,
/// and the samples with their one further label.
type PerShard = (&'static str, &'static str, Kind, &'static [(Id, (&'static str, &'static str))]);

const PER_SHARD: &[PerShard] = &[
    (
        "veilgate_engine_shard_sessions",
        "Connected sessions of each shard",
        Kind::Gauge,
        &[
            (Id::SessionsPublishing, ("role", "publisher")),
            (Id::SessionsPlaying, ("role", "player")),
        ],
    ),
    (
        "veilgate_engine_shard_datagrams_total",
        "UDP datagrams of each shard",
        Kind::Counter,
        &[
            (Id::EngineDatagramsIn, ("direction", "in")),
            (Id::EngineDatagramsOut, ("direction", "out")),
        ],
    ),
];

struct DataPlane {
    shards: Vec<Arc<Published>>,
    descs: Vec<Desc>,
}

impl DataPlane {
    fn new(shards: Vec<Arc<Published>>) -> Result<Self, prometheus::Error> {
        let mut descs = Vec::new();
        for def in DEFS {
            let labels = def.labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            descs.push(Desc::new(
                def.name.to_owned(),
                def.help.to_owned(),
                Vec::new(),
                labels.collect(),
            )?);
        }
        for def in HISTS {
            descs.push(Desc::new(
                def.name.to_owned(),
                def.help.to_owned(),
                Vec::new(),
                std::collections::HashMap::new(),
            )?);
        }
        for (name, help, _, samples) in PER_SHARD {
            let labels = samples.iter().map(|(_, (label, _))| (*label).to_owned());
            let mut labels: Vec<String> = labels.take(1).collect();
            labels.push("shard".to_owned());
            let (name, help) = ((*name).to_owned(), (*help).to_owned());
            descs.push(Desc::new(name, help, labels, std::collections::HashMap::new())?);
        }
        Ok(Self { shards, descs })
    }

    fn sum(&self, cell: usize) -> u64 {
        self.shards.iter().fold(0, |total, shard| total.wrapping_add(shard.at(cell)))
    }
}

impl Collector for DataPlane {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut families: Vec<proto::MetricFamily> = Vec::new();
        for (cell, def) in DEFS.iter().enumerate() {
            let metric = sample(def.kind, self.sum(cell), def.labels.iter().copied());
            let kind = family_type(def.kind);
            match families.iter_mut().find(|f| f.name() == def.name) {
                Some(family) => family.mut_metric().push(metric),
                None => families.push(family(def.name, def.help, kind, metric)),
            }
        }
        for (index, def) in HISTS.iter().enumerate() {
            let base = DEFS.len() + offset(index);
            let mut histogram = proto::Histogram::default();
            let mut cumulative = 0;
            let mut buckets = Vec::with_capacity(def.bounds.len());
            for (i, bound) in def.bounds.iter().enumerate() {
                cumulative += self.sum(base + i);
                let mut bucket = proto::Bucket::default();
                bucket.set_cumulative_count(cumulative);
                bucket.set_upper_bound(*bound as f64 / def.per_unit);
                buckets.push(bucket);
            }
            histogram.set_bucket(buckets);
            cumulative += self.sum(base + def.bounds.len());
            histogram.set_sample_count(cumulative);
            histogram.set_sample_sum(self.sum(base + def.bounds.len() + 1) as f64 / def.per_unit);
            let mut metric = proto::Metric::default();
            metric.set_histogram(histogram);
            families.push(family(def.name, def.help, proto::MetricType::HISTOGRAM, metric));
        }
        for (name, help, kind, samples) in PER_SHARD {
            let mut metrics = Vec::new();
            for (shard, published) in self.shards.iter().enumerate() {
                let shard = shard.to_string();
                for (id, label) in *samples {
                    let labels = [*label, ("shard", shard.as_str())];
                    metrics.push(sample(*kind, published.get(*id), labels));
                }
            }
            let mut metrics = metrics.into_iter();
            if let Some(first) = metrics.next() {
                let mut family = family(name, help, family_type(*kind), first);
                family.mut_metric().extend(metrics);
                families.push(family);
            }
        }
        families
    }
}

const fn family_type(kind: Kind) -> proto::MetricType {
    match kind {
        Kind::Counter => proto::MetricType::COUNTER,
        Kind::Gauge => proto::MetricType::GAUGE,
    }
}

fn sample<'a>(
    kind: Kind,
    value: u64,
    labels: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> proto::Metric {
    let labels = labels.into_iter().map(|(name, value)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    });
    let mut metric = proto::Metric::default();
    metric.set_label(labels.collect());
    match kind {
        Kind::Counter => {
            let mut counter = proto::Counter::default();
            counter.set_value(value as f64);
            metric.set_counter(counter);
        }
        Kind::Gauge => {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value as f64);
            metric.set_gauge(gauge);
        }
    }
    metric
}

fn family(
    name: &str,
    help: &str,
    kind: proto::MetricType,
    metric: proto::Metric,
) -> proto::MetricFamily {
    let mut family = proto::MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.mut_metric().push(metric);
    family
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Counters, Hist, Id};

    #[test]
    fn exposition_sums_the_shards() {
        let shards: Vec<Arc<Published>> = (0..2).map(|_| Arc::default()).collect();
        for shard in &shards {
            let mut counters = Counters::default();
            counters.add(Id::ForwardPackets, 3);
            counters.observe(Hist::RecvBatch, 3);
            counters.observe(Hist::RecvBatch, 1_000);
            counters.publish(shard);
        }
        let text = Exposition::new(shards).and_then(|e| e.text()).expect("encodes");
        for line in [
            "veilgate_forward_packets_total 6",
            "veilgate_engine_recv_batch_datagrams_bucket{le=\"2\"} 0",
            "veilgate_engine_recv_batch_datagrams_bucket{le=\"4\"} 2",
            "veilgate_engine_recv_batch_datagrams_bucket{le=\"+Inf\"} 4",
            "veilgate_engine_recv_batch_datagrams_sum 2006",
            "veilgate_relay_auth_failures_total{reason=\"forged\"} 0",
            "veilgate_engine_shard_sessions{role=\"player\",shard=\"1\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
