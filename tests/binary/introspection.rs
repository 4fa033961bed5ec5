//! An introspection that fails, while every page is answered: nothing stops, unless the token itself is refused.

use crate::world::{World, history};
use futures_util::future::join_all;
use opship::sim::{Fault, Refusal, Target, What};
use std::time::Duration;

fn refusal(status: u16, text: &str) -> What {
    What::Status(Refusal { text: Some(text.into()), ..Refusal::status(status) })
}

fn body(text: &str) -> What {
    What::Body { text: text.into() }
}

/// Fault: introspection answers 404, 405, 500, a challenge page, HTML, a BOM, numbers and nulls for texts, nothing, or never. Shows: every event arrives once with exit 0, one warning, one introspection for all feeds.
#[tokio::test]
async fn fm_63_an_introspection_that_fails_stops_nothing() {
    let features = r#""features":["auditevents","itemusages","signinattempts",null]"#;
    let cases = [
        ("404", What::Status(Refusal::status(404)), true),
        ("405", What::Status(Refusal::status(405)), true),
        ("500", What::Status(Refusal::status(500)), true),
        ("a challenge page", refusal(403, "<html>Are you human?</html>"), true),
        ("nothing", refusal(204, ""), true),
        ("HTML", body("<html>Sign in</html>"), true),
        ("an empty object", body("{}"), true),
        ("a BOM", body(&format!("\u{feff}{{\"uuid\":\"U\",{features}}}")), false),
        ("a number for the account", body(&format!("{{\"uuid\":\"U\",\"account_uuid\":17,{features}}}")), false),
        ("null for the features", body(r#"{"uuid":"U","features":null}"#), false),
        ("no answer", What::Hang, true),
        ("a cut connection", What::ResetBeforeHeaders, true),
    ];
    let each = cases.map(|(name, what, is_told)| async move {
        let world = World::file(history(60)).await;
        world.fault(Fault::new(Target::Introspect, what));
        let ran = world.once().await.exits(0);
        world.assert_exactly_once();
        let told = ran.stderr.matches("does not introduce the token").count();
        assert_eq!(told, usize::from(is_told), "{name}: {}", ran.stderr);
        let journal = world.sim.world().journal();
        let asked = journal.iter().filter(|entry| entry.path.contains("introspect"));
        let most = if name == "a cut connection" { 8 } else { 1 };
        assert!((1..=most).contains(&asked.count()), "{name}: one introspection for all feeds");
        assert!(ran.took < Duration::from_secs(60), "{name}: {:?}", ran.took);
        world
            .cli(&["check"])
            .await
            .exits(0)
            .says(&["what it says of itself serves"].map(|it| if is_told { it } else { "" }));
    });
    join_all(each).await;
}

/// Fault: introspection answers 401, or 403 in 1Password's own shape, or the token's features lack a stream. Shows: exit 77, nothing is shipped.
#[tokio::test]
async fn fm_63_a_refused_token_is_still_refused() {
    for status in [401, 403] {
        let world = World::file(history(30)).await;
        world.fault(Fault::new(Target::Introspect, What::Status(Refusal::status(status))));
        world.once().await.exits(77);
        assert_eq!(world.rows().len(), 0);
    }
}
