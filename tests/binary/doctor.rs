//! `opship check` breaks nothing and finds what is broken: each fault by one line that names it and what to do.
//! `OPSHIP_BLESS=1` writes what it said into the README.

use crate::agent::Ran;
use crate::doctor_cases::{Case, Setup, cases};
use crate::world::{Kind, World, history};
use futures_util::future::join_all;
use opship::flow::Stream;
use opship::sim::Service;
use opship::store::Store;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Longest time of a whole check, whatever the network does.
const CHECK_MAX: Duration = Duration::from_secs(60);
const README: (&str, &str) = ("<!-- opship check: what was broken -->", "<!-- /opship check: what was broken -->");
const GOOD: (&str, &str) = ("<!-- opship check: all is well -->", "<!-- /opship check: all is well -->");

/// One line of `check --output json`.
#[derive(Debug)]
struct Told {
    title: String,
    status: String,
    finding: String,
    remedy: String,
}

fn told(ran: &Ran) -> (Vec<Told>, Value) {
    let mut lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = lines.pop().unwrap();
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let told = |line: &Value| {
        let title = format!("{} {}", text(line, "step"), text(line, "of")).trim_end().to_owned();
        assert!(line["ms"].is_u64(), "{line}");
        Told { title, status: text(line, "status"), finding: text(line, "finding"), remedy: text(line, "remedy") }
    };
    (lines.iter().map(told).collect(), summary)
}

async fn check(setup: &Setup) -> Ran {
    let args = ["check", "--output", "json"];
    match &setup.script {
        Some(script) => setup.world.by_script(script, &args).await,
        None => setup.world.cli(&args).await,
    }
}

/// Runs the case, asserts all of it, and gives the README's line.
async fn line_of(case: Case) -> String {
    let Case { broken, setup, step: (mark, title), skipped, hints, exit, names } = case;
    let mut setup = setup.await;
    // The steps are what is looked at; their log is looked at elsewhere.
    setup.world.set("OPSHIP_LOG__LEVEL", "error");
    let ran = check(&setup).await;
    println!("{broken}: {}", ran.stdout);
    assert_eq!(ran.code, Some(exit), "{broken}: {ran:?}");
    assert!(ran.took < CHECK_MAX, "{broken}: {:?}", ran.took);
    let (steps, summary) = told(&ran);
    let at = |step: &Told| match (step.title.as_str(), step.status.as_str()) {
        (found, "fail" | "warn") if found == title => true,
        (other, "warn") if hints.contains(&other) => true,
        (other, "skipped") => skipped.contains(&other) && step.finding == format!("needs {title}"),
        (other, status) => status == "ok" && other != title && !skipped.contains(&other),
    };
    let wrong: Vec<&Told> = steps.iter().filter(|step| !at(step)).collect();
    assert!(wrong.is_empty(), "{broken}: {wrong:#?} of {steps:#?}");
    let count = |status: &str| steps.iter().filter(|step| step.status == status).count();
    assert_eq!(count("skipped"), skipped.len(), "{broken}: {steps:#?}");
    assert_eq!((&summary["exit_code"], &summary["ready"]), (&exit.into(), &(exit == 0).into()));
    let step = steps.iter().find(|step| step.title == title).unwrap();
    assert_eq!(step.status, mark.to_lowercase(), "{broken}");
    assert!(!step.finding.contains('\n') && !step.finding.is_empty() && !step.remedy.is_empty(), "{step:?}");
    assert!(!step.finding.contains(&step.remedy), "{broken}: the remedy stands in the finding too: {step:?}");
    for name in names {
        assert!(step.finding.contains(name) || step.remedy.contains(name), "{broken}: {name} is not in {step:?}");
    }
    let line = |step: &Told| {
        let mark = if step.status == "fail" { "FAIL" } else { "WARN" };
        format!("`{mark} {}` {} <br>→ {}", step.title, step.finding, step.remedy)
    };
    let said: Vec<String> = steps.iter().filter(|step| !step.remedy.is_empty()).map(line).collect();
    let said = Shown::of(&setup.world).text(&said.join(" <br>"));
    format!("| {broken} | {} |", said.replace('|', "\\|"))
}

/// Makes texts the same on every machine and day.
struct Shown(Vec<(String, String)>);

impl Shown {
    fn of(world: &World) -> Self {
        let home = world.home.path().display().to_string();
        let sim = world.sim.base_url().split("//").nth(1).unwrap().to_owned();
        Self(vec![
            (format!("{home}/state"), "/var/lib/opship".into()),
            (format!("{home}/secrets"), "/etc/opship".into()),
            (home, "/var/lib".into()),
            (format!("http://{sim}/v1/workspaces"), "https://api.loganalytics.azure.com/v1/workspaces".into()),
            (sim, "events.1password.com".into()),
        ])
    }

    fn text(&self, text: &str) -> String {
        let mut text = self.0.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        for host in ["127.0.0.1:", "localhost:"] {
            text = after(&text, host, |c| c.is_ascii_digit(), "PORT");
        }
        for container in ["/check-", "/test-"] {
            text = after(&text, container, |c| c.is_ascii_hexdigit() || c == '-', "").replace(container, "/opship");
        }
        text.lines().map(words).collect::<Vec<_>>().join("\n")
    }
}

/// Replaces the characters behind each `start` that are of this kind.
fn after(text: &str, start: &str, kind: impl Fn(char) -> bool, by: &str) -> String {
    let mut parts = text.split(start);
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        whole.push_str(start);
        whole.push_str(by);
        whole.push_str(part.trim_start_matches(&kind));
    }
    whole
}

/// Durations that depend on the day, and dates that the cases did not choose.
fn words(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let next = |at: usize| words.get(at + 1).map_or("", |word| word.trim_end_matches([',', ';']));
    let previous = |at: usize| at.checked_sub(1).and_then(|at| words.get(at)).copied().unwrap_or_default();
    let shown = |(at, word): (usize, &&str)| {
        let number = word.chars().all(|c| c.is_ascii_digit()) && !word.is_empty();
        let of_the_day = ["days", "h", "s"].contains(&next(at));
        match number && of_the_day && ["expired", "in", "for", "ago,", "written"].contains(&previous(at)) {
            true => "N".to_owned(),
            false if number && previous(at) == "process" => "N".to_owned(),
            false if is_date(word) && !word.starts_with("2026-01-31") => format!("YYYY-MM-DD{}", &word[10..]),
            false => (*word).to_owned(),
        }
    };
    words.iter().enumerate().map(shown).collect::<Vec<_>>().join(" ")
}

fn is_date(word: &str) -> bool {
    word.get(..10).is_some_and(|date| date.parse::<chrono::NaiveDate>().is_ok())
}

/// What stands between two marks of the README must be this text, unless it may be written anew.
fn stands_in_the_readme((begin, end): (&str, &str), wanted: &str) {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = page.split_once(begin).unwrap();
    let (stands, tail) = rest.split_once(end).unwrap();
    if stands.trim() == wanted {
        return;
    }
    let may = std::env::var_os("OPSHIP_BLESS").is_some();
    assert!(may, "README.md is stale: run this test with OPSHIP_BLESS=1; between {begin} must stand:\n{wanted}");
    std::fs::write(&path, format!("{head}{begin}\n{wanted}\n{end}{tail}")).unwrap();
}

#[tokio::test]
async fn each_broken_thing_is_named_by_one_step_with_its_remedy_and_nothing_else_is_blamed() {
    let mut lines = vec!["| what was broken | what `opship check` said |".to_owned(), "|---|---|".to_owned()];
    lines.extend(join_all(cases().into_iter().map(line_of)).await);
    stands_in_the_readme(README, &lines.join("\n"));
}

/// The lines of the text output, N for the time that each step took.
fn timeless(text: &str) -> String {
    let line = |line: &str| {
        let Some((head, tail)) = line.split_once(" ms  ") else { return line.to_owned() };
        let name = head.trim_end_matches(|c: char| c.is_ascii_digit());
        format!("{name}{:>width$} ms  {tail}", "N", width = head.len() - name.len())
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_good_setup_is_all_ok_by_text_and_by_json_without_colours() {
    let (mut world, _internet) = World::behind_a_proxy(Kind::Blob, history(30)).await;
    world.once().await.exits(0);
    world.set("OPSHIP_LOG__LEVEL", "info");
    let ran = world.cli(&["check"]).await.exits(0);
    assert_eq!(ran.stderr, "", "nothing is said twice");
    assert!(!ran.stdout.contains('\u{1b}'), "{}", ran.stdout);
    let steps = ran.stdout.lines().take_while(|line| !line.is_empty()).collect::<Vec<_>>();
    assert!(steps.iter().all(|line| line.starts_with("ok  ")), "{}", ran.stdout);
    let (told, summary) = told(&world.cli(&["check", "--output", "json"]).await.exits(0));
    assert_eq!((told.len(), summary["ok"].as_u64()), (steps.len(), Some(told.len() as u64)));
    assert!(told.iter().all(|step| step.status == "ok" && step.remedy.is_empty()), "{told:#?}");
    let shown = Shown::of(&world).text(&timeless(&ran.stdout));
    let shown = shown.rsplit_once(" in ").map_or(shown.as_str(), |(shown, _)| shown).to_owned();
    stands_in_the_readme(GOOD, &format!("```text\n{shown}\n```"));
}

/// Names and bytes of everything in a store.
async fn content(store: &Arc<dyn Store>) -> BTreeMap<String, Vec<u8>> {
    let mut content = BTreeMap::new();
    for found in store.list("").await.unwrap() {
        let bytes = store.read_from(&found.key, 0).await.unwrap().unwrap_or_default();
        content.insert(found.key.to_string(), bytes.to_vec());
    }
    content
}

fn names_below(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        names.push(entry.path().display().to_string());
        if entry.path().is_dir() {
            names.extend(names_below(&entry.path()));
        }
    }
    names.sort();
    names.into_iter().filter(|name| !name.ends_with(".out") && !name.ends_with(".err")).collect()
}

#[tokio::test]
async fn a_check_leaves_nothing_behind() {
    let world = World::file(history(30)).await;
    let empty = names_below(world.home.path());
    world.cli(&["check"]).await.exits(0).says(&["the folder is made by the first run", "no position yet"]);
    assert_eq!(names_below(world.home.path()), empty, "neither a folder nor a lock that could belong to another user");
    for world in [world, World::new(Kind::Blob, history(30)).await] {
        world.once().await.exits(0);
        let (store, rows) = (world.store().await, world.rows().len());
        let (before, files) = (content(&store).await, names_below(world.home.path()));
        world.cli(&["check"]).await.exits(0).says(&["3 positions"]);
        assert_eq!(content(&store).await, before);
        assert_eq!(names_below(world.home.path()), files);
        assert_eq!(world.rows().len(), rows, "no row is posted");
        world.assert_exactly_once();
    }
}

#[tokio::test]
async fn a_check_beside_a_running_agent_disturbs_neither() {
    let world = World::file(history(300)).await;
    world.sim.world().set_live(20.0);
    let agent = world.run();
    for _ in 0..5 {
        world.cli(&["check"]).await.exits(0);
    }
    world.sim.world().stop_generator();
    let all_arrived = || world.sim.world().compare().lost == 0;
    crate::agent::wait_until("everything arrives", Duration::from_secs(60), all_arrived).await;
    agent.stop().await.exits(0);
    world.assert_exactly_once();
}

#[tokio::test]
async fn a_file_of_rows_is_proved_without_being_opened_also_while_an_agent_writes_to_it() {
    let mut world = World::file(history(30)).await;
    let rows = world.home.path().join("rows");
    for name in ["ENDPOINT", "DCR_IMMUTABLE_ID", "STREAM"] {
        world.unset(&format!("OPSHIP_SINK__{name}"));
    }
    world.set("OPSHIP_SINK__KIND", "ndjson").set("OPSHIP_SINK__PATH", rows.display());
    world.cli(&["check"]).await.exits(0).says(&["nobody writes to it now"]);
    assert!(!rows.exists(), "nothing is left behind");
    let agent = world.run();
    let file = rows.join("OnePasswordEventLogs_CL.ndjson");
    let is_there = || std::fs::metadata(&file).is_ok_and(|file| file.len() > 0);
    crate::agent::wait_until("rows arrive", Duration::from_secs(60), is_there).await;
    world.cli(&["check"]).await.exits(0).says(&["another process writes to it now", "3 positions"]);
    agent.stop().await.exits(0);
}

#[tokio::test]
async fn a_proxy_that_wants_a_login_is_named_as_such() {
    let (world, internet) = World::behind_a_proxy(Kind::File, history(30)).await;
    internet.demand_login();
    let (steps, _) = told(&world.cli(&["check", "--output", "json"]).await.exits(1));
    let failed: Vec<&Told> = steps.iter().filter(|step| step.status == "fail").collect();
    let titles: Vec<&str> = failed.iter().map(|step| step.title.as_str()).collect();
    assert_eq!(titles, ["connection default", "connection identity", "connection rule"]);
    assert!(failed.iter().all(|step| step.finding.contains("wants a login")), "{failed:#?}");
    assert!(failed.iter().all(|step| step.remedy.contains("http.proxy")), "{failed:#?}");
    let asked = world.sim.world().journal();
    assert!(asked.iter().all(|entry| entry.service != Service::Events(Some(Stream::AuditEvents))), "{asked:?}");
}
