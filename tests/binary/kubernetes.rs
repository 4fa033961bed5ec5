//! What Kubernetes puts into the environment of a container that nobody asked for.

use crate::world::{World, history};

/// As the kubelet makes them of a Service `opship` with one port, and of one `opship-store`.
const INJECTED: [(&str, &str); 14] = [
    ("OPSHIP_SERVICE_HOST", "10.0.171.239"),
    ("OPSHIP_SERVICE_PORT", "9464"),
    ("OPSHIP_SERVICE_PORT_ADMIN", "9464"),
    ("OPSHIP_PORT", "tcp://10.0.171.239:9464"),
    ("OPSHIP_PORT_9464_TCP", "tcp://10.0.171.239:9464"),
    ("OPSHIP_PORT_9464_TCP_PROTO", "tcp"),
    ("OPSHIP_PORT_9464_TCP_PORT", "9464"),
    ("OPSHIP_PORT_9464_TCP_ADDR", "10.0.171.239"),
    ("OPSHIP_STORE_SERVICE_HOST", "fd00:10:96::1"),
    ("OPSHIP_STORE_SERVICE_PORT", "10000"),
    ("OPSHIP_STORE_PORT", "tcp://[fd00:10:96::1]:10000"),
    ("OPSHIP_STORE_PORT_10000_TCP", "tcp://[fd00:10:96::1]:10000"),
    ("OPSHIP_STORE_PORT_10000_TCP_PORT", "10000"),
    ("OPSHIP_STORE_PORT_10000_TCP_ADDR", "fd00:10:96::1"),
];

/// Fault: the namespace has a Service named `opship` and one named `opship-store`. Shows: their variables end no start, and everything arrives once.
#[tokio::test]
async fn fm_73_variables_of_a_service_end_no_start() {
    let mut world = World::file(history(30)).await;
    for (name, value) in INJECTED {
        world.set(name, value);
    }
    world.once().await.exits(0);
    world.assert_exactly_once();
}

/// Fault: keys that are misspelt so that they look like those of a Service. Shows: exit 64 by name, before anything is asked.
#[tokio::test]
async fn fm_73_a_misspelt_key_is_refused_beside_them() {
    for (name, value) in [("OPSHIP_PORT", "9464"), ("OPSHIP_SERVICE_HOST", "opship"), ("OPSHIP_STORE_PATH", "/tmp")] {
        let mut world = World::file(history(1)).await;
        world.set("OPSHIP_STORE_SERVICE_PORT", "10000").set(name, value);
        let ran = world.once().await.exits(64).says(&[&format!("environment variable {name}: "), "unknown key"]);
        assert!(!ran.stderr.contains("OPSHIP_STORE_SERVICE_PORT"), "{}", ran.stderr);
        assert!(world.sim.world().journal().is_empty());
    }
}
