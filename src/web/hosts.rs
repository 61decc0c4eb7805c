//! Which names and addresses of this server a request may have in its `Host`
//! field (RFC 9110, section 7.2).
//!
//! Without this check the origin check can be passed by DNS rebinding: the
//! owner of evil.example lets that name point to the address of this server.
//! Then a browser sends `evil.example` as `Host` and as `Origin`, and the two
//! are equal. Introduced by step 09.
//!
//! Lesson: [09_websocket_chat](../../../../../lessons/09_websocket_chat.md).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// The hosts that a server was started for.
///
/// The loopback hosts are always known: `localhost`, `127.0.0.0/8` and `[::1]`.
/// A port does not matter, because only the name can be another site's.
#[derive(Clone, Debug, Default)]
pub struct KnownHosts {
    /// In lower case, without port, without the loopback hosts.
    names: Vec<String>,
}

impl KnownHosts {
    /// Makes the list from hosts with or without a port: the addresses of the listeners
    /// as they were given on the command line, and the value of `--host`.
    pub fn new<'a>(hosts: impl IntoIterator<Item = &'a str>) -> KnownHosts {
        let mut names = Vec::new();
        for host in hosts.into_iter().filter_map(without_port) {
            let name = host.to_ascii_lowercase();
            if !is_loopback(&name) && !names.contains(&name) {
                names.push(name);
            }
        }
        KnownHosts { names }
    }

    /// Whether this value of a `Host` field names this server. `local` is the
    /// address of the connection's local end: a server that listens on all
    /// addresses was started for each of them.
    pub fn contains(&self, host: &str, local: IpAddr) -> bool {
        without_port(host).is_some_and(|name| {
            is_loopback(name)
                || ip_address(name) == Some(local.to_canonical())
                || self.names.iter().any(|known| known.eq_ignore_ascii_case(name))
        })
    }
}

/// The list for a person, as in `localhost, a loopback address, or the address
/// of this connection`.
impl fmt::Display for KnownHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.names {
            write!(f, "{name}, ")?;
        }
        f.write_str("localhost, a loopback address, or the IP address of this connection")
    }
}

/// The host of `HOST` or `HOST:PORT` (RFC 3986, section 3.2). An IPv6 address
/// keeps its brackets. None if the text has neither form.
fn without_port(authority: &str) -> Option<&str> {
    let end = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, port) = authority.split_at(end);
    let is_port = port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    (!host.is_empty() && (port.is_empty() || is_port)).then_some(host)
}

/// The address that a host is, if it is one.
fn ip_address(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inside) => inside.parse().ok().map(|ip: Ipv6Addr| IpAddr::V6(ip).to_canonical()),
        None => host.parse().ok().filter(IpAddr::is_ipv4),
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || ip_address(host).is_some_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

    #[test]
    fn loopback_hosts_are_known_with_any_port() {
        let hosts = KnownHosts::default();
        for host in
            ["localhost", "LocalHost:8080", "127.0.0.1:1", "127.9.9.9:8080", "[::1]:8080", "[::1]"]
        {
            assert!(hosts.contains(host, LOCAL), "{host}");
        }
    }

    #[test]
    fn other_hosts_are_unknown() {
        let hosts = KnownHosts::new(["127.0.0.1:8080"]);
        for host in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example:8080",
            "evil.example:8080:127.0.0.1",
            "127.0.0.1:x",
            "127.1",
            "[::2]:8080",
            "[::1",
            "[::1]x",
            "::1",
            "evil@localhost:8080",
            "192.0.2.8:8080",
            ":8080",
            "",
        ] {
            assert!(!hosts.contains(host, LOCAL), "{host}");
        }
    }

    #[test]
    fn a_server_is_known_by_the_names_that_it_was_started_for() {
        let hosts = KnownHosts::new(["chat.example:8080", "0.0.0.0:8443", "Other.example"]);
        for host in ["chat.example", "CHAT.example:1", "0.0.0.0:8443", "other.EXAMPLE:443"] {
            assert!(hosts.contains(host, LOCAL), "{host}");
        }
        assert!(!hosts.contains("a.chat.example", LOCAL));
        assert!(hosts.to_string().starts_with("chat.example, 0.0.0.0, other.example, localhost"));
    }

    #[test]
    fn the_address_of_the_local_end_is_known() {
        let hosts = KnownHosts::default();
        let mapped = IpAddr::V6(Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped());
        for local in [LOCAL, mapped] {
            assert!(hosts.contains("192.0.2.7:8080", local));
        }
        let local = "2001:db8::7".parse().expect("an address");
        assert!(hosts.contains("[2001:DB8:0::7]:8080", local));
        assert!(!hosts.contains("[2001:db8::8]:8080", local));
    }
}
