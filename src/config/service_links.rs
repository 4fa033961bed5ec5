//! Variables that Kubernetes puts into every container for each Service of its namespace. Those of a Service named `opship`, or `opship-`
//! and anything, begin like ours: <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>.

use std::net::{IpAddr, SocketAddr};

const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// Whether name and value have the shape that Kubernetes gives them. One alone is not enough: a key that somebody misspelt must be told.
pub(super) fn is_service_link(name: &str, value: &str) -> bool {
    let is_host = name.ends_with("_SERVICE_HOST") && is_address(value);
    let is_place_of_all = name.ends_with("_PORT") && is_place(value, &PROTOCOLS);
    is_host || is_place_of_all || is_named_port(name, value) || is_of_a_port(name, value)
}

/// `OPSHIP_SERVICE_PORT`, and with a name behind it.
fn is_named_port(name: &str, value: &str) -> bool {
    let port_name = name.split_once("_SERVICE_PORT").map(|(_, port_name)| port_name);
    port_name.is_some_and(|port_name| port_name.is_empty() || port_name.starts_with('_')) && is_port(value)
}

/// `OPSHIP_PORT_9464_TCP`, and what may follow it.
fn is_of_a_port(name: &str, value: &str) -> bool {
    let Some((_, rest)) = name.rsplit_once("_PORT_") else { return false };
    let mut words = rest.split('_');
    let (Some(port), Some(protocol), part, None) = (words.next(), words.next(), words.next(), words.next()) else {
        return false;
    };
    let protocol = protocol.to_ascii_lowercase();
    let fits = match part {
        None => is_place(value, &[&protocol]),
        Some("PROTO") => value == protocol,
        Some("PORT") => value == port,
        Some("ADDR") => is_address(value),
        Some(_) => false,
    };
    fits && is_port(port) && PROTOCOLS.contains(&protocol.as_str())
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// `tcp://10.0.0.1:9464`
fn is_place(text: &str, protocols: &[&str]) -> bool {
    text.split_once("://")
        .is_some_and(|(protocol, place)| protocols.contains(&protocol) && place.parse::<SocketAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_injects_is_known_by_name_and_value() {
        for link in [
            "OPSHIP_SERVICE_HOST=10.0.171.239",
            "OPSHIP_SERVICE_HOST=fd00:10:96::1",
            "OPSHIP_SERVICE_PORT=9464",
            "OPSHIP_SERVICE_PORT_ADMIN_HTTP=9464",
            "OPSHIP_PORT=tcp://10.0.171.239:9464",
            "OPSHIP_PORT=tcp://[fd00:10:96::1]:9464",
            "OPSHIP_PORT_9464_TCP=tcp://10.0.171.239:9464",
            "OPSHIP_PORT_53_UDP=udp://10.0.171.239:53",
            "OPSHIP_PORT_53_SCTP_PROTO=sctp",
            "OPSHIP_PORT_9464_TCP_PROTO=tcp",
            "OPSHIP_PORT_9464_TCP_PORT=9464",
            "OPSHIP_PORT_9464_TCP_ADDR=10.0.171.239",
            "OPSHIP_STORE_SERVICE_HOST=10.0.0.1",
            "OPSHIP_SERVICE_PORT_SERVICE_HOST=10.0.0.1",
            "OPSHIP_PORT_PORT_80_TCP_PORT=80",
            "OPSHIP_STORE_PORT=udp://10.0.0.1:53",
            "OPSHIP_STORE_PORT_10000_TCP_PORT=10000",
        ] {
            let (name, value) = link.split_once('=').unwrap();
            assert!(is_service_link(name, value), "{link}");
        }
    }

    #[test]
    fn a_misspelt_key_has_another_shape() {
        for other in [
            "OPSHIP_PORT=9464",
            "OPSHIP_ADMIN_PORT=9464",
            "OPSHIP_PORT=https://10.0.0.1:9464",
            "OPSHIP_PORT=tcp://opship:9464",
            "OPSHIP_SERVICE_HOST=opship.internal",
            "OPSHIP_SERVICE_PORT=http",
            "OPSHIP_SERVICE_PORT=",
            "OPSHIP_SERVICE_PORTS=9464",
            "OPSHIP_PORT_9464_TCP=udp://10.0.0.1:9464",
            "OPSHIP_PORT_9464_TCP_PORT=9465",
            "OPSHIP_PORT_9464_TCP_PROTO=udp",
            "OPSHIP_PORT_9464_TCP_HOST=10.0.0.1",
            "OPSHIP_PORT_ADMIN_TCP_ADDR=10.0.0.1",
            "OPSHIP_STORE_KIND=file",
            "OPSHIP_STORE__PATHS=/var/lib/opship",
            "OPSHIP_ADMIN_LISTEN=10.0.0.1",
        ] {
            let (name, value) = other.split_once('=').unwrap();
            assert!(!is_service_link(name, value), "{other}");
        }
    }
}
