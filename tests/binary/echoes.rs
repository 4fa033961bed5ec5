//! Servers that echo what was sent to them: nothing of it comes back out.

use crate::edges::Edge;
use crate::raw::Raw;
use crate::world::{World, history};
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How a server answers with what it was asked.
#[derive(Clone, Copy, Debug)]
enum Echo {
    OnePassword,
    Azure,
    Entra,
    Storage,
    Html,
    Header,
    Percent,
}

impl Echo {
    const ALL: [Self; 7] =
        [Self::OnePassword, Self::Azure, Self::Entra, Self::Storage, Self::Html, Self::Header, Self::Percent];

    fn answer(self, status: &str, asked: &str) -> String {
        let text = serde_json::to_string(asked).unwrap();
        let line = asked.replace(['\r', '\n'], " ");
        let (kind, header, body) = match self {
            Self::OnePassword => ("application/json", "", format!(r#"{{"status":403,"message":{text}}}"#)),
            Self::Azure => ("application/json", "", format!(r#"{{"error":{{"code":{text},"message":{text}}}}}"#)),
            Self::Entra => ("application/json", "", format!(r#"{{"error":{text},"error_description":{text}}}"#)),
            Self::Storage => {
                ("application/xml", "", format!("<Error><Code>{line}</Code><Message>{line}</Message></Error>"))
            }
            Self::Html => ("text/html", "", format!("<html><title>{line}</title>{line}</html>")),
            Self::Header => ("text/plain", "x-ms-error-code", line.clone()),
            Self::Percent => {
                let percent: String = asked.bytes().map(|byte| format!("%{byte:02x}")).collect();
                ("application/json", "", format!(r#"{{"error":{{"code":"X","message":"{percent}"}}}}"#))
            }
        };
        let header = if header.is_empty() { String::new() } else { format!("{header}: {line}\r\n") };
        let date = httpdate_now();
        format!(
            "HTTP/1.1 {status} X\r\ndate: {date}\r\ncontent-type: {kind}\r\n{header}content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    }
}

fn httpdate_now() -> String {
    chrono::Utc::now().format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// A server that says to everyone what everyone says to it.
async fn echo(echo: Echo, status: &'static str) -> Raw {
    Raw::wire(move |mut stream| async move {
        let mut asked = vec![0; 64 * 1024];
        let mut length = 0;
        // The head, and as much of the body as comes with it.
        while !asked[..length].windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read(&mut asked[length..]).await {
                Ok(read) if read > 0 => length += read,
                _ => return,
            }
        }
        let asked = String::from_utf8_lossy(&asked[..length]).into_owned();
        let _ = stream.write_all(echo.answer(status, &asked).as_bytes()).await;
        let _ = stream.shutdown().await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await
}

/// Fault: each server answers 400, 403 and 500 with the whole request in each error shape, in a page, in a header and percent-encoded. Shows: no command, log, archive or file holds a secret, a piece of one or an address of an event; each fails and heals.
#[tokio::test]
async fn fm_65_servers_that_echo_the_request_are_not_quoted() {
    for status in ["400", "403", "500"] {
        for edge in Edge::ALL {
            join_all(Echo::ALL.map(|how| nothing_is_quoted(edge, how, status))).await;
        }
    }
}

async fn nothing_is_quoted(edge: Edge, how: Echo, status: &'static str) {
    let scene = format!("{edge:?} {how:?} {status}");
    let mut world = World::file(history(30)).await;
    world.set("OPSHIP_SINK__GZIP_LEVEL", "0");
    let server = echo(how, status).await;
    world.point(edge, &server.url());
    let ran = world.cli(&["once", "--max-duration", "3s"]).await;
    assert_ne!(ran.code, Some(0), "{scene}: {}", ran.stderr);
    let mut said = ran.stdout + &ran.stderr;
    for args in [&["check"][..], &["check", "--output", "json"], &["status", "--from-store"], &["diagnostics"]] {
        let ran = world.cli(args).await;
        said += &(ran.stdout + &ran.stderr);
    }
    assert!(!said.contains("@example"), "{scene}: somebody's address in {said}");
    for secret in world.secrets() {
        let mut pieces = (0..secret.len().saturating_sub(11)).filter_map(|at| secret.get(at..at + 12));
        assert_eq!(pieces.find(|piece| said.contains(piece)), None, "{scene}: a piece of a secret in {said}");
    }
    assert!(server.connections() > 0);
    world.heal();
    world.once().await.exits(0);
    world.assert_exactly_once();
}
