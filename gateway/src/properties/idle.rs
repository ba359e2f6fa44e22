use std::collections::BTreeSet;

use gray_config::{Faults, KeyPath, did_you_mean};
use gray_lb::{Algorithm, ServiceName};

use super::{DEFAULT, GatewayProperties, HashBy, ListProperties, Protocol, UpstreamProperties};

/// Warns of what is written down and has no effect: most of it was meant otherwise.
///
/// `routed` are the services that routes lead to.
pub(crate) fn warn_of_idle(
    properties: &GatewayProperties,
    routed: &BTreeSet<ServiceName>,
    faults: &mut Faults,
) {
    let root = KeyPath::ROOT;
    for (name, service) in &properties.services {
        let at = root.key("services").key(name);
        if name != DEFAULT && !routed.contains(&ServiceName::new(name.as_str())) {
            let near = did_you_mean(name, routed.iter().map(ServiceName::as_str).chain([DEFAULT]));
            let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            faults.warning(&at, format!("no route leads to `{name}`{near}"));
        }
        warn_of_service(service, &at, faults);
    }
    if properties.access_log.file.is_some() && !properties.access_log.enabled {
        let message = "nothing is written there: `accessLog.enabled` is not set";
        faults.warning(&root.dotted("accessLog.file"), message);
    }
    if properties.rules.nacos.is_none() {
        for (name, list) in &properties.rules.lists {
            if let ListProperties::DataId(_) = list {
                let message = "it is never read: there is no `rules.nacos` whose group it is in";
                faults.warning(&root.dotted("rules.lists").key(name), message);
            }
        }
    }
}

fn warn_of_service(service: &UpstreamProperties, at: &KeyPath, faults: &mut Faults) {
    let given =
        [("caFile", service.ca_file.is_some()), ("serverName", service.server_name.is_some())];
    for (key, _) in given.into_iter().filter(|(_, given)| *given) {
        if service.protocol != Protocol::Https {
            faults.warning(&at.key(key), "it has no effect without `protocol: https`");
        }
    }
    if service.hash_by != HashBy::ClientIp && service.balance != Algorithm::ConsistentHash {
        faults.warning(&at.key("hashBy"), "it has no effect without `balance: consistentHash`");
    }
}
