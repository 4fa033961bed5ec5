//! A row that somebody on the way refuses, with every body that it is in: the real program gets past it in one run.

use crate::letters::{UUIDS, id};
use crate::world::{World, history};
use chrono::TimeDelta;
use futures_util::future::join_all;
use opship::flow::Stream;
use opship::sim::{Fault, Refusal, Target, What};
use serde_json::{Value, json};

/// What a firewall takes offence at.
const OFFENCE: &str = "' OR 1=1 --";

fn answers(status: u16, code: Option<&str>, text: Option<&str>) -> What {
    let (code, text) = (code.map(Into::into), text.map(Into::into));
    What::Status(Refusal { code, text, ..Refusal::status(status) })
}

/// The ways in which a body is refused for one row.
fn ways() -> [What; 8] {
    [
        answers(400, Some("SomethingElse"), None),
        answers(400, None, Some("")),
        answers(403, None, Some("<html>Your request was blocked</html>")),
        answers(404, None, Some("<html>Not here</html>")),
        answers(406, None, Some("<html>Not Acceptable</html>")),
        answers(422, None, Some("")),
        answers(500, None, Some("<html>Internal Server Error</html>")),
        What::ResetBeforeHeaders,
    ]
}

impl World {
    /// An audit event that says who did what, and a text that somebody planted.
    fn planted(&self) {
        let at = self.sim.world().now() - TimeDelta::minutes(1);
        let event = json!({
            "uuid": UUIDS[0], "timestamp": at.to_rfc3339(), "actor_uuid": "ACTORAAAAAAAAAAAAAAAAAAAAA", "action": "view",
            "actor_details": {"uuid": "ACTORAAAAAAAAAAAAAAAAAAAAA", "name": OFFENCE}, "object_type": "item",
            "object_uuid": "OBJECTAAAAAAAAAAAAAAAAAAAA", "session": {"uuid": "SESSIONAAAAAAAAAAAAAAAAAAA", "ip": "203.0.113.9"},
            "aux_info": OFFENCE,
        });
        self.item(Stream::AuditEvents, event.to_string());
    }
}

/// Fault: bodies with one planted text are answered by a 400 with another code or none, 403, 404 or 406 in HTML, 422, 500, or cut off. Shows: one `once` ships the other 30 rows and a stub with all ids, exits 2, keeps one letter; the next one exits 0.
#[tokio::test]
async fn fm_52_a_row_that_a_firewall_refuses_stops_no_other() {
    let each = ways().map(async |way| {
        let world = World::file(history(30)).await;
        world.planted();
        world.fault(Fault::new(Target::Ingestion, way.clone()).holding(OFFENCE));
        let ran = world.once().await.exits(2);
        assert!(ran.took.as_secs() < 60, "{way:?}: {:?}", ran.took);
        world.assert_exactly_once();
        assert_eq!(world.rows().len(), 31, "{way:?}");
        let stub = world.row(UUIDS[0]);
        let actor = json!("ACTORAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!((&stub["actor_uuid"], &stub["actor_details"]), (&actor, &json!({"uuid": actor})));
        assert_eq!((&stub["action"], &stub["object_type"]), (&json!("view"), &json!("item")));
        assert_eq!(stub["session"], json!({"uuid": "SESSIONAAAAAAAAAAAAAAAAAAA"}));
        assert_eq!((&stub["aux_info"], &stub["object_uuid"]), (&Value::Null, &json!("OBJECTAAAAAAAAAAAAAAAAAAAA")));
        let letters = world.letters().await;
        assert_eq!((letters.len(), &letters[0]["id"]), (1, &json!(id(UUIDS[0]))), "{way:?}");
        let others = world.rows().into_iter().filter(|row| !row["details"]["opship"]["stub"].is_null()).count();
        assert_eq!(others, 1, "{way:?}: the others are whole");
        world.once().await.exits(0).says(&["0 shipped"]);
    });
    join_all(each).await;
}

/// Fault: every body is refused like that, the empty array too. Shows: `once` exits 1, nothing is set aside; after the repair everything arrives whole.
#[tokio::test]
async fn fm_52_a_destination_that_refuses_everything_blames_no_row() {
    let each = ways().map(async |way| {
        let world = World::file(history(30)).await;
        world.planted();
        world.fault(Fault::new(Target::Ingestion, way.clone()));
        world.once().await.exits(1);
        assert_eq!((world.letters().await.len(), world.rows().len()), (0, 0), "{way:?}");
        world.sim.world().clear_faults();
        world.an_hour_passes();
        world.once().await.exits(0);
        world.assert_exactly_once();
        assert_eq!(world.row(UUIDS[0])["aux_info"], OFFENCE, "{way:?}");
    });
    join_all(each).await;
}
