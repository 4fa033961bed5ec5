//! What others say must not forge or garble what the program says.

use crate::world::{World, history};
use opship::flow::Stream;
use opship::sim::{Fault, Refusal, Target, What};
use serde_json::{Value, json};

/// A line end, colours, right-to-left overrides, a bell, a line separator.
const EVIL: &str = "a\r\n{\"level\":\"INFO\",\"message\":\"FORGED\"}\nFORGED \u{1b}[31mred\u{1b}[0m \u{202e}gpj.exe\u{2066} \u{61c}\u{7}\u{9b}31m\u{2028}b";

fn refused(status: u16) -> What {
    What::Status(Refusal { message: Some(format!("{EVIL}{}", "x".repeat(5_000))), ..Refusal::status(status) })
}

/// No line was forged, nothing a terminal would obey came through, no foreign text is longer than 512 characters.
fn assert_plain(said: &str) {
    let obeyed = |c: char| c.is_control() && c != '\n' || "\u{61c}\u{202e}\u{2066}\u{2028}".contains(c);
    assert!(!said.contains(obeyed), "{said:?}");
    assert!(!said.lines().any(|line| line.starts_with("FORGED") || line.starts_with("{\"level\"")), "{said}");
    assert!(!said.contains(&"x".repeat(513)), "{said}");
}

/// Fault: line ends, ANSI codes and bidi marks in events and error bodies. Shows: no forged line, no raw mark, at most 512 characters, no event.
#[tokio::test]
async fn fm_41_no_event_and_no_error_body_forges_a_log_line() {
    for format in ["json", "pretty"] {
        let mut world = World::file(history(30)).await;
        world.set("OPSHIP_LOG__FORMAT", format).set("OPSHIP_LOG__LEVEL", "trace");
        let sim = world.sim.world();
        for uuid in ["EVIL-EVENT", EVIL] {
            for action in ["EVIL-EVENT", EVIL] {
                let event = json!({"uuid": uuid, "timestamp": EVIL, "action": action, EVIL: EVIL});
                sim.append_raw(Stream::AuditEvents, sim.now(), event.to_string());
            }
        }
        world.fault(Fault::new(Target::Events, refused(503)).times(1));
        world.fault(Fault::new(Target::Ingestion, refused(429)).times(1));
        let ran = world.once().await.exits(0).says(&["FORGED", "one id has two contents"]);
        assert!(!ran.stderr.contains("EVIL-EVENT"), "what stands in an event is not for the log: {}", ran.stderr);
        world.fault(Fault::new(Target::Ingestion, refused(404)));
        sim.append(Stream::AuditEvents, opship::sim::When::Now);
        let failed = world.once().await.exits(1).says(&["FORGED"]);
        for ran in [&ran, &failed] {
            assert_plain(&ran.stderr);
            assert_plain(&ran.stdout);
            assert!(ran.stdout.lines().all(|line| line.starts_with("default/")), "{}", ran.stdout);
            for line in ran.stderr.lines() {
                let is_ours = match format {
                    "json" => serde_json::from_str::<Value>(line).is_ok_and(|line| line["timestamp"].is_string()),
                    _ => line.split_once('T').is_some_and(|(day, _)| day.len() == 10 && day.starts_with("20")),
                };
                assert!(is_ours, "{line}");
            }
        }
    }
}
