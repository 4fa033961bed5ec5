//! TLS that cannot be trusted: nothing is sent.

use crate::edges::Edge;
use crate::raw::{Authority, Raw, self_signed};
use crate::world::{World, history};
use futures_util::future::join_all;
use rcgen::{SanType, date_time_ymd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

const HOST: &str = "localhost";
const BUSY: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n";

impl World {
    async fn trusting(authority: &Authority) -> Self {
        let mut world = Self::file(history(30)).await;
        let ca = world.home.path().join("ca.pem");
        std::fs::write(&ca, authority.pem()).unwrap();
        world.set("OPSHIP_HTTP__CA_FILE", ca.display()).set("OPSHIP_DELIVERY__ALLOW_HOSTS", r#"["localhost"]"#);
        world
    }
}

/// Nothing is sent to `server`, whichever edge it stands for; the run fails and names the host.
async fn fails_closed(authority: &Authority, server: &Raw, reason: &str) {
    let place = format!("https://{HOST}:{}", server.address.port());
    let each = [Edge::Source, Edge::Sink].map(|edge| {
        let place = &place;
        async move {
            let mut world = World::trusting(authority).await;
            world.fails_and_heals(edge, place).await.says(&["could not connect", HOST, reason]);
        }
    });
    join_all(each).await;
    assert!(server.connections() > 0, "{reason}");
    assert_eq!(server.heads(), [""; 0], "{reason}: not a byte of a request");
}

/// Fault: certificates that are expired, for another host, of an unknown authority or self-signed. Shows: exit 1 naming host and reason, no byte of a request; afterwards everything arrives once.
#[tokio::test]
async fn fm_31_certificates_that_cannot_be_trusted_get_no_request() {
    let ours = Authority::new();
    let elsewhere = vec![SanType::DnsName("elsewhere.example".try_into().unwrap())];
    let cases = [
        (ours.server(HOST, |params| params.not_after = date_time_ymd(2020, 1, 1)), "set the clock if it is wrong"),
        (ours.server(HOST, |params| params.not_before = date_time_ymd(2090, 1, 1)), "set the clock if it is wrong"),
        (ours.server(HOST, |params| params.subject_alt_names = elsewhere), "not valid for"),
        (Authority::new().server(HOST, |_| ()), "UnknownIssuer"),
        (self_signed(HOST), "invalid peer certificate"),
    ];
    let each = cases.map(|(config, reason)| {
        let ours = &ours;
        async move { fails_closed(ours, &Raw::always(Some(config), BUSY).await, reason).await }
    });
    join_all(each).await;
}

/// Fault: a server that speaks TLS 1.1 only, and one that resets in the handshake. Shows: exit 1 naming the host; afterwards everything arrives once.
#[tokio::test]
async fn fm_31_old_versions_and_broken_handshakes_get_no_request() {
    let ours = Authority::new();
    let old = Raw::wire(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        // ServerHello of version 3.2 with TLS_RSA_WITH_AES_128_CBC_SHA.
        let hello = [&[0x16, 3, 2, 0, 42, 2, 0, 0, 38, 3, 2][..], &[7; 32], &[0, 0, 0x2f, 0]].concat();
        let _ = stream.write_all(&hello).await;
        let _ = stream.read(&mut [0; 4096]).await;
    })
    .await;
    let reset = Raw::wire(|mut stream| async move {
        // What is left unread turns the close into a reset.
        let _ = stream.read_exact(&mut [0; 5]).await;
    })
    .await;
    tokio::join!(fails_closed(&ours, &old, "peer"), fails_closed(&ours, &reset, "reset"));
}

/// Fault: none, the same servers with a certificate that can be trusted. Shows: they do get requests, so that the tests above can fail.
#[tokio::test]
async fn fm_31_a_certificate_that_can_be_trusted_gets_requests() {
    let ours = Authority::new();
    let server: Arc<_> = ours.server(HOST, |_| ());
    let good = Raw::always(Some(server), BUSY).await;
    let mut world = World::trusting(&ours).await;
    world
        .fails_and_heals(Edge::Source, &format!("https://{HOST}:{}", good.address.port()))
        .await
        .says(&["answered 503"]);
    assert!(good.heads().iter().any(|head| head.contains("/auth/introspect")), "{:?}", good.heads().len());
}

/// Fault: a system without certificate authorities. Shows: exit 64 before any request, with what to install or to set; with one it goes on.
#[tokio::test]
async fn fm_31_without_authorities_of_the_system_the_start_is_refused_with_what_to_install() {
    let mut world = World::file(history(30)).await;
    world.set("SSL_CERT_FILE", world.home.path().join("none.pem").display().to_string());
    let remedies = ["certificate authorities", "ca-certificates", "http.ca_file", "SSL_CERT_FILE"];
    world.once().await.exits(64).says(&remedies);
    assert_eq!(world.sim.world().requests(), 0);
    let pem = world.home.path().join("some.pem");
    std::fs::write(&pem, Authority::named("Some CA").pem()).unwrap();
    world.set("OPSHIP_HTTP__CA_FILE", pem.display()).once().await.exits(0);
    world.unset("OPSHIP_HTTP__CA_FILE");
    world.set("SSL_CERT_FILE", pem.display().to_string()).once().await.exits(0);
    world.assert_exactly_once();
}

/// Fault: source and rule speak HTTP/2 and refuse each stream of it with HTTP_1_1_REQUIRED. Shows: the same request comes again by HTTP/1.1, and so do all that follow.
#[tokio::test]
async fn fm_64_a_server_that_wants_http_1_1_gets_it() {
    for edge in [Edge::Source, Edge::Sink] {
        let ours = Authority::new();
        let (acceptor, plain) =
            (TlsAcceptor::from(ours.server_of(HOST, &["h2", "http/1.1"])), Arc::new(AtomicUsize::new(0)));
        let counted = plain.clone();
        let server = Raw::wire(move |stream| {
            let (acceptor, plain) = (acceptor.clone(), counted.clone());
            async move {
                let Ok(mut wire) = acceptor.accept(stream).await else { return };
                if wire.get_ref().1.alpn_protocol() == Some(b"h2") {
                    return refuse_http2(&mut wire).await;
                }
                plain.fetch_add(1, Ordering::SeqCst);
                let _ = wire.read(&mut [0; 65_536]).await;
                let _ = wire.write_all(BUSY.as_bytes()).await;
                let _ = wire.shutdown().await;
            }
        })
        .await;
        let mut world = World::trusting(&ours).await;
        let ran = world.fails_and_heals(edge, &format!("https://{HOST}:{}", server.address.port())).await;
        let refused = ran.says(&["answered 503"]).stderr.matches("the server refuses HTTP/2").count();
        assert!(refused >= 1 && plain.load(Ordering::SeqCst) > 1, "{edge:?}: {refused}, {plain:?}");
    }
}

/// An empty SETTINGS, then RST_STREAM with HTTP_1_1_REQUIRED (13) for the first stream that a client opens.
async fn refuse_http2(wire: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) {
    let _ = wire.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
    let mut preface = [0; 24];
    let _ = wire.read_exact(&mut preface).await;
    let mut head = [0; 9];
    while wire.read_exact(&mut head).await.is_ok() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let _ = wire.read_exact(&mut vec![0; length]).await;
        // HEADERS
        if head[3] == 1 {
            let reset = [&[0, 0, 4, 3, 0][..], &head[5..], &[0, 0, 0, 13]].concat();
            let _ = wire.write_all(&reset).await;
        }
    }
}
