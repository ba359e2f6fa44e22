use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::View;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) async fn metrics(State(view): State<Arc<View>>) -> Response {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Arc::clone(&view.gateway.observer.metrics)));
    registry.register_collector(Box::new(Background(view)));
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => ([(CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(fmt::Error) => http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// What is known about rules, instances and Nacos.
#[derive(Debug)]
struct Background(Arc<View>);

impl Collector for Background {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let view = &self.0;
        let rules = view.rules.load();
        let instances = view.instances.load();
        let dropped = view
            .gateway
            .observer
            .access_log
            .as_ref()
            .map_or(0, super::super::access_log::AccessLog::dropped);
        for (name, help, value) in [
            ("graylane_rules_accepted", "Sets of rules put into force", rules.accepted),
            ("graylane_rules_rejected", "Sets of rules refused", rules.rejected),
            ("graylane_directory_changes", "Changes of instances", instances.changes),
            ("graylane_instances_refusals", "Instances refused", instances.refusals),
            ("graylane_access_log_dropped", "Lines that could not be written", dropped),
        ] {
            let mut one = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            one.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        let age = rules.since.and_then(|since| SystemTime::now().duration_since(since).ok());
        let rejected = view.rejected.iter().filter(|rejected| rejected.borrow().is_some()).count();
        let rejected = i64::try_from(rejected).unwrap_or(i64::MAX);
        let refused = i64::try_from(instances.refused.len()).unwrap_or(i64::MAX);
        for (name, help, value) in [
            (
                "graylane_rules_rejected_now",
                "Whether the newest rules are refused",
                i64::from(rules.problems.is_some()),
            ),
            (
                "graylane_rules_warnings",
                "What is odd about the rules in force",
                i64::try_from(rules.warnings.0.len()).unwrap_or(i64::MAX),
            ),
            (
                "graylane_rules_unavailable",
                "Whether rules cannot be had",
                i64::from(rules.unavailable.is_some()),
            ),
            (
                "graylane_rules_age_seconds",
                "Time since the rules in force were put into force",
                age.map_or(-1, |age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX)),
            ),
            ("graylane_instances_refused", "Instances that are refused now", refused),
            ("graylane_registries_rejected_now", "Files of instances that are refused", rejected),
        ] {
            let mut one = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            one.encode_gauge(&value)?;
        }
        encode_info(&mut encoder, &rules.digest)?;
        self.encode_instances(&mut encoder)?;
        self.encode_reloads(&mut encoder)?;
        self.encode_links(&mut encoder)
    }
}

impl Background {
    fn encode_instances(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Instances that may be called, by service and version";
        let kind = MetricType::Gauge;
        let mut family = encoder.encode_descriptor("graylane_instances", help, None, kind)?;
        let directory = self.0.gateway.proxy.balancer.directory().load();
        for (service, subsets) in directory.iter() {
            let mut versions = std::collections::BTreeMap::new();
            for member in subsets.registered() {
                let instance = member.instance();
                let version = instance.version.as_ref().map(ToString::to_string);
                let count = versions.entry(version.unwrap_or_default()).or_insert(0_i64);
                *count += i64::from(instance.is_available());
            }
            for (version, count) in versions {
                let labels = [("service", service.to_string()), ("version", version)];
                family.encode_family(&labels)?.encode_gauge(&count)?;
            }
        }
        Ok(())
    }

    fn encode_reloads(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Files that were read again since they had changed";
        let kind = MetricType::Counter;
        let mut family = encoder.encode_descriptor("graylane_reloads", help, None, kind)?;
        for (kind, reload) in self.0.reloads.all() {
            for (result, count) in [("done", reload.done), ("failed", reload.failed)] {
                let labels = [("files", kind), ("result", result)];
                let mut one = family.encode_family(&labels)?;
                one.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        Ok(())
    }

    fn encode_links(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Read = fn(&gray_config::nacos::Link) -> u64;
        let counters: [(&str, &str, Read); 4] = [
            ("graylane_nacos_pushes", "Pushes received", |it| it.stats().pushes.load(Relaxed)),
            ("graylane_nacos_connections_made", "Connections made", |it| {
                it.stats().connections.load(Relaxed)
            }),
            ("graylane_nacos_polls", "Unasked re-reads", |it| it.stats().polls.load(Relaxed)),
            ("graylane_nacos_poll_finds", "Re-reads that found what no push had brought", |it| {
                it.stats().poll_finds.load(Relaxed)
            }),
        ];
        let labels = |link: &gray_config::nacos::Link| {
            let properties = link.properties();
            [
                ("servers", properties.servers.join(",")),
                ("namespace", properties.namespace_name().to_owned()),
                ("module", link.module().as_str().to_owned()),
            ]
        };
        for (name, help, read) in counters {
            let kind = MetricType::Counter;
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for link in &self.0.links {
                let labels = labels(link);
                let mut one = family.encode_family(&labels)?;
                one.encode_counter::<NoLabelSet, _, u64>(&read(link), None)?;
            }
        }
        let (name, help) = ("graylane_nacos_connected", "Whether there is a connection");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for link in &self.0.links {
            let connected = i64::from(link.state().borrow().connected);
            family.encode_family(&labels(link))?.encode_gauge(&connected)?;
        }
        let name = "graylane_nacos_last_heard_timestamp_seconds";
        let help =
            "When the server last answered or pushed anything, in seconds since 1970; 0 before";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for link in &self.0.links {
            let heard = Duration::from_millis(link.stats().last_heard.load(Relaxed));
            family.encode_family(&labels(link))?.encode_gauge(&heard.as_secs_f64())?;
        }
        Ok(())
    }
}

fn encode_info(encoder: &mut DescriptorEncoder<'_>, digest: &str) -> fmt::Result {
    let help = "The rules in force, by their digest";
    let kind = MetricType::Gauge;
    let mut family = encoder.encode_descriptor("graylane_rules_info", help, None, kind)?;
    let labels = [("digest", digest.to_owned())];
    family.encode_family(&labels)?.encode_gauge(&1_i64)
}
