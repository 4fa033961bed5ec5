//! Two entries of the configuration that are one 1Password account, and an entry that gets another name.

use crate::agent::wait_until;
use crate::world::{Kind, World, history};
use opship::flow::Stream;
use opship::sim::When;
use std::time::Duration;

both_stores! {
    fm_51_two_entries_with_one_token_ship_each_event_once
    fm_51_in_a_store_without_owners_what_has_shipped_most_owns
    fm_51_a_renamed_entry_goes_on_where_it_stood
    fm_51_a_rename_that_is_killed_is_finished_by_the_next
}

const SOON: Duration = Duration::from_secs(60);

impl World {
    /// A second entry with the token of the first.
    pub fn twin(&mut self, name: &str) -> &mut Self {
        let (there, variable) = (self.sim.base_url().to_owned(), name.to_uppercase());
        self.set(&format!("OPSHIP_ACCOUNTS__{variable}__TOKEN"), "env:OP_EVENTS_TOKEN");
        self.set(&format!("OPSHIP_ACCOUNTS__{variable}__EVENTS_URL"), there)
    }

    /// The entry has another name from now on.
    fn rename(&mut self, name: &str) {
        self.unset("OPSHIP_ACCOUNTS__DEFAULT__TOKEN").unset("OPSHIP_ACCOUNTS__DEFAULT__EVENTS_URL").twin(name);
    }

    async fn keys(&self, prefix: &str) -> Vec<opship::store::Key> {
        self.store().await.list(prefix).await.unwrap().into_iter().map(|entry| entry.key).collect()
    }

    async fn forget_owners(&self) {
        let store = self.store().await;
        for key in self.keys("owners/").await {
            store.delete(&key).await.unwrap();
        }
    }

    fn each_stream_has_news(&self) {
        Stream::ALL.into_iter().for_each(|stream| _ = self.sim.world().append(stream, When::Now));
    }
}

/// Fault: two entries with one token, from the first start on. Shows: `once` exits 64 and `check` fails, both name the two, each event arrives once.
async fn fm_51_two_entries_with_one_token_ship_each_event_once(kind: Kind) {
    let mut world = World::new(kind, history(300)).await;
    world.twin("second");
    let names = ["accounts.default", "accounts.second", "remove one of the two entries"];
    world.cli(&["check"]).await.exits(64).says(&["FAIL  state", names[0], names[1]]);
    assert_eq!(world.keys("owners/").await.len(), 0, "check writes nothing");
    for _ in 0..2 {
        world.once().await.exits(64).says(&names);
        world.assert_exactly_once();
    }
    assert_eq!(world.keys("owners/").await.len(), 6, "of three streams: the account's and its token's");
    world.cli(&["check"]).await.exits(64).says(&names);
}

/// Fault: a second entry with the same token beside a running one. Shows: it is not ready and says why, the first ships on, each event arrives once.
#[tokio::test]
async fn fm_51_a_running_twin_is_not_ready_and_says_so() {
    let mut world = World::file(history(90)).await;
    world.once().await.exits(0);
    world.twin("second");
    let agent = world.run();
    let browser = agent.browser().await;
    let told =
        browser.wait_for("/readyz", &[], SOON, |answer| answer.body.matches("accounts.second").count() >= 3).await;
    assert_eq!(told.status, 503);
    assert!(told.body.contains("accounts.default"), "{told:?}");
    world.each_stream_has_news();
    wait_until("the first entry ships", SOON, || world.sim.world().compare().lost == 0).await;
    world.set("OPSHIP_ADMIN__LISTEN", browser.0);
    world.cli(&["status"]).await.exits(1).says(&["second/auditevents", "accounts.default"]);
    agent.stop().await.exits(0).says(&["the tick did not complete", "remove one of the two entries"]);
    world.assert_exactly_once();
}

/// Fault: commands are given to a second entry of an account. Shows: each exits 64 with both names, nothing is shipped or written under its name.
#[tokio::test]
async fn fm_51_commands_of_a_twin_are_refused() {
    let mut world = World::file(history(60)).await;
    world.once().await.exits(0);
    world.twin("second");
    for command in [
        vec!["backfill", "--from", "30d", "--account", "second"],
        vec!["backfill", "--from", "30d", "--dry-run", "--account", "second"],
        vec!["checkpoint", "reset", "--account", "second"],
    ] {
        world.cli(&command).await.exits(64).says(&["accounts.default", "accounts.second"]);
    }
    world.cli(&["checkpoint", "reset", "--account", "default"]).await.exits(0);
    assert!(world.keys("").await.iter().all(|key| !key.as_str().contains("second")));
    world.cli(&["once"]).await.exits(64);
    world.assert_exactly_once();
}

/// Fault: two entries of one account share its streams. Shows: that is legal, each event arrives once.
#[tokio::test]
async fn fm_51_entries_that_share_the_streams_are_legal() {
    let mut world = World::file(history(90)).await;
    world.twin("second").set("OPSHIP_ACCOUNTS__DEFAULT__STREAMS", r#"["auditevents"]"#);
    world.set("OPSHIP_ACCOUNTS__SECOND__STREAMS", r#"["itemusages", "signinattempts"]"#);
    world.cli(&["check"]).await.exits(0);
    world.once().await.exits(0);
    world.assert_exactly_once();
    // A stream that changes sides takes its position along.
    world.set("OPSHIP_ACCOUNTS__DEFAULT__STREAMS", r#"["auditevents", "itemusages"]"#);
    world.set("OPSHIP_ACCOUNTS__SECOND__STREAMS", r#"["signinattempts"]"#);
    let command = "opship checkpoint rename second default --stream itemusages";
    world.once().await.exits(64).says(&[command]);
    let command: Vec<&str> = command.split(' ').skip(1).collect();
    world.cli(&command).await.exits(0).says(&["second/itemusages is default/itemusages now"]);
    world.each_stream_has_news();
    world.once().await.exits(0);
    world.assert_exactly_once();
}

/// Fault: two configurations over one store ship one account to two destinations. Shows: that is legal, each destination gets each event once.
#[tokio::test]
async fn fm_51_one_account_to_two_destinations_is_legal() {
    let mut world = World::file(history(60)).await;
    world.once().await.exits(0);
    let files = world.home.path().join("rows");
    world.rename("copy");
    world.set("OPSHIP_SINK__KIND", "ndjson").set("OPSHIP_SINK__PATH", files.display());
    ["ENDPOINT", "DCR_IMMUTABLE_ID"].into_iter().for_each(|key| _ = world.unset(&format!("OPSHIP_SINK__{key}")));
    world.once().await.exits(0);
    let rows = std::fs::read_dir(&files).unwrap().map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    let events = rows
        .flat_map(|text| text.lines().filter(|line| line.contains("uuid_s")).map(str::to_owned).collect::<Vec<_>>());
    assert_eq!(events.count(), 60);
    world.assert_exactly_once();
}

/// Fault: a store of an earlier version, which says nothing of owners. Shows: the entry that has shipped most goes on, the other is refused; no event arrives twice.
async fn fm_51_in_a_store_without_owners_what_has_shipped_most_owns(kind: Kind) {
    let mut world = World::new(kind, history(90)).await;
    world.once().await.exits(0);
    world.forget_owners().await;
    // By name it would be the first.
    world.twin("another");
    world.cli(&["check"]).await.exits(64).says(&["FAIL  state another", "accounts.default"]);
    let ran = world.once().await.exits(64);
    assert!(ran.stdout.contains("default/auditevents: 0 shipped"), "{}", ran.stdout);
    ran.says(&["another/auditevents: accounts.another is the same 1Password account as accounts.default"]);
    world.assert_exactly_once();
}

/// Fault: an entry is renamed in the configuration. Shows: refused with the command; that command moves everything, nothing is shipped again, what follows is shipped once; the old name may not come back.
async fn fm_51_a_renamed_entry_goes_on_where_it_stood(kind: Kind) {
    let mut world = World::new(kind, history(300)).await;
    world.once().await.exits(0);
    world.cli(&["checkpoint", "rename", "default", "renamed"]).await.exits(64).says(&["no account renamed"]);
    world.rename("renamed");
    world.once().await.exits(64).says(&["opship checkpoint rename default renamed"]);
    world.cli(&["checkpoint", "rename", "defualt", "renamed"]).await.exits(64).says(&["positions of default"]);
    let ran = world.cli(&["checkpoint", "rename", "default", "renamed"]).await.exits(0);
    ran.says(&["default/auditevents is renamed/auditevents now: 150 rows shipped so far", "default/signinattempts"]);
    assert!(world.keys("").await.iter().all(|key| !key.as_str().contains("/default")), "something was left behind");
    world.each_stream_has_news();
    world.once().await.exits(0).says(&["renamed/auditevents: 1 shipped"]);
    world.assert_exactly_once();
    world.cli(&["check"]).await.exits(0);
    world.twin("default");
    world.once().await.exits(64).says(&["accounts.renamed", "accounts.default"]);
    world.cli(&["checkpoint", "rename", "renamed", "default"]).await.exits(64).says(&["accounts.renamed ships"]);
    world.assert_exactly_once();
}

/// Fault: the command that renames is killed on its way, three times. Shows: neither name ships meanwhile, the same command finishes it, each event arrives once.
async fn fm_51_a_rename_that_is_killed_is_finished_by_the_next(kind: Kind) {
    let mut world = World::behind_a_gate(kind, history(600)).await;
    world.once().await.exits(0);
    world.rename("renamed");
    let state = world.home.path().join("state");
    for on_its_way in ["owners", "ledger/renamed/auditevents", "checkpoints/renamed"] {
        let requests = world.gate.requests();
        let agent = world.start(&["checkpoint", "rename", "default", "renamed"]);
        match kind {
            Kind::File => wait_until("it is on its way", SOON, || state.join(on_its_way).exists()).await,
            Kind::Blob => wait_until("it is on its way", SOON, || world.gate.requests() > requests + 40).await,
        }
        agent.kill().await;
        world.once().await.exits(64);
    }
    world.cli(&["checkpoint", "rename", "default", "renamed"]).await.exits(0);
    world.each_stream_has_news();
    world.once().await.exits(0);
    world.assert_exactly_once();
}
