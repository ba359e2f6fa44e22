//! What can be written down and never works: places taken twice, limits of nothing, names that are none.

use std::net::SocketAddr;

use gray_config::{Faults, HumanDuration, KeyPath};

use super::GatewayProperties;
use crate::head::is_token;

/// Notes what of the configuration can never work.
pub(crate) fn check_bounds(properties: &GatewayProperties, faults: &mut Faults) {
    let root = KeyPath::ROOT;
    check_addresses(properties, faults);
    check_limits(properties, faults);
    let cookie = &properties.sticky_cookie;
    if cookie.name.is_empty() || !cookie.name.bytes().all(is_token) {
        let message = format!("{:?} is no name of a cookie", cookie.name);
        faults.error(&root.dotted("stickyCookie.name"), message);
    }
    if let Some(file) = &properties.access_log.file {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent.filter(|parent| !parent.is_dir()) {
            let message = format!("there is no directory {}", parent.display());
            faults.error(&root.dotted("accessLog.file"), message);
        }
    }
}

/// Each place can be listened on once.
fn check_addresses(properties: &GatewayProperties, faults: &mut Faults) {
    let root = KeyPath::ROOT;
    let listeners = properties.listeners.iter().enumerate().map(|(index, listener)| {
        (root.key("listeners").index(index).key("address"), listener.address.as_str())
    });
    let admin = (root.dotted("admin.address"), properties.admin.address.as_str());
    let mut taken: Vec<SocketAddr> = Vec::new();
    for (at, text) in listeners.chain([admin]) {
        let Ok(addr) = text.parse::<SocketAddr>() else { continue };
        if let Some(other) = taken.iter().find(|other| overlap(**other, addr)) {
            faults
                .error(&at, format!("{other} is listened on already, which takes {addr} as well"));
        }
        taken.push(addr);
    }
}

/// Tells whether one of them takes what the other would: each address is one of the unspecified one's, and
/// those of version 4 are of `[::]` too.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let takes = |one: SocketAddr, other: SocketAddr| {
        one.ip() == other.ip() || (one.ip().is_unspecified() && (one.is_ipv6() || other.is_ipv4()))
    };
    one.port() == other.port() && one.port() != 0 && (takes(one, other) || takes(other, one))
}

/// Nothing at all is no limit that anything can be served within.
fn check_limits(properties: &GatewayProperties, faults: &mut Faults) {
    let (limits, root) = (&properties.limits, KeyPath::ROOT);
    let counts = [
        ("connections", limits.connections),
        ("headSize", limits.head_size.bytes()),
        ("headers", limits.headers),
        ("targetSize", limits.target_size.bytes()),
        ("streams", usize::try_from(limits.streams).unwrap_or(usize::MAX)),
        ("attempts", limits.attempts),
    ];
    for (key, _) in counts.into_iter().filter(|(_, count)| *count == 0) {
        faults.error(&root.key("limits").key(key), "nothing can be served where this is 0");
    }
    let times = [("headTime", limits.head_time), ("writeTime", limits.write_time)];
    check_times(times.map(|(key, time)| (key, Some(time))), &root.key("limits"), faults);
    let times = &properties.timeouts;
    let all = [
        ("connect", Some(times.connect)),
        ("firstByte", Some(times.first_byte)),
        ("idle", Some(times.idle)),
        ("total", times.total),
    ];
    check_times(all, &root.key("timeouts"), faults);
    for (index, route) in properties.routes.iter().enumerate() {
        let Some(own) = &route.timeouts else { continue };
        let at = root.key("routes").index(index).key("timeouts");
        let all = [
            ("connect", own.connect),
            ("firstByte", own.first_byte),
            ("idle", own.idle),
            ("total", own.total),
        ];
        check_times(all, &at, faults);
    }
}

fn check_times<const N: usize>(
    times: [(&str, Option<HumanDuration>); N],
    at: &KeyPath,
    faults: &mut Faults,
) {
    for (key, time) in times {
        if time.is_some_and(|time| time.0.is_zero()) {
            faults.error(
                &at.key(key),
                "nothing can be served in no time; leave it out, or give it some",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_by_those_that_contain_it() {
        let check = |one: &str, other: &str, expected| {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(overlap(one, other), expected, "{one} {other}");
            assert_eq!(overlap(other, one), expected, "{other} {one}");
        };
        check("0.0.0.0:80", "127.0.0.1:80", true);
        check("[::]:80", "127.0.0.1:80", true);
        check("[::]:80", "[::1]:80", true);
        check("127.0.0.1:80", "127.0.0.1:80", true);
        check("127.0.0.1:80", "127.0.0.2:80", false);
        check("0.0.0.0:80", "[::1]:80", false);
        check("0.0.0.0:80", "0.0.0.0:81", false);
        check("127.0.0.1:0", "127.0.0.1:0", false);
    }
}
