//! The status page of the real program in a real browser: tests/ui looks, this side keeps the agent and its simulator.

use crate::agent::{Agent, wait_until};
use crate::world::{World, history};
use rustix::process::Signal;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

/// No scene takes longer, on a loaded machine either.
const SCENE_DEADLINE: Duration = Duration::from_secs(150);
/// From the start of the program until its page is there.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// A world whose agent serves its page where a browser finds it again after a restart.
struct Stage {
    world: World,
    address: SocketAddr,
}

impl Stage {
    async fn new() -> Self {
        let mut world = World::file(history(600)).await;
        // The kernel's choice, free again at once.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        world.set("OPSHIP_ADMIN__LISTEN", address);
        Self { world, address }
    }

    async fn agent(&self) -> Agent {
        let agent = self.world.run();
        wait_until("the page is served", START_DEADLINE, || TcpStream::connect(self.address).is_ok()).await;
        agent
    }

    /// Plays a scene of tests/ui/look.mjs.
    async fn plays(&self, scene: &str, more: &[(&str, &str)]) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui");
        assert!(
            folder.join("node_modules/.opship-lock").is_file(),
            "the browser is not installed: run scripts/browser"
        );
        let agent = self.agent().await;
        let browser = Command::new("node")
            .arg(folder.join("look.mjs"))
            .arg(scene)
            .env("PAGE", format!("http://{}/", self.address))
            .env("SIM", self.world.sim.base_url().trim_end_matches('/'))
            // What the page held is left here, where the world looks for secrets at its end.
            .env("OUT", self.world.home.path())
            .envs(more.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("start node (version 20 or later must be in PATH)");
        let played = tokio::time::timeout(SCENE_DEADLINE, self.keep(agent, browser)).await;
        played.unwrap_or_else(|_| panic!("the scene {scene} does not end")).stop().await.exits(0);
    }

    /// Does what the scene asks for until it ends, and asserts that it ended well.
    async fn keep(&self, agent: Agent, mut browser: Child) -> Agent {
        let mut wishes = BufReader::new(browser.stdout.take().unwrap()).lines();
        let mut done = browser.stdin.take().unwrap();
        let mut agent = Some(agent);
        while let Some(wish) = wishes.next_line().await.unwrap() {
            match wish.as_str() {
                "stop" => drop(agent.take().unwrap().stop().await.exits(0)),
                "start" => agent = Some(self.agent().await),
                "freeze" => agent.as_ref().unwrap().signal(Signal::STOP),
                "thaw" => agent.as_ref().unwrap().signal(Signal::CONT),
                other => panic!("{other:?} is no wish"),
            }
            done.write_all(b"done\n").await.unwrap();
        }
        let mut said = String::new();
        browser.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
        let agent = agent.unwrap();
        assert!(browser.wait().await.unwrap().success(), "{said}\nthe agent said:\n{}", agent.stderr());
        agent
    }
}

#[tokio::test]
async fn the_page_shows_every_feed_and_follows_events_faults_and_mending_without_a_reload() {
    Stage::new().await.plays("live", &[]).await;
}

/// Shows: a page whose agent is stopped, or frozen with its connections open, says so with the age of what it shows, and comes back by
/// itself. An open page does not keep the agent from ending.
#[tokio::test]
async fn the_page_says_when_the_agent_is_gone_or_frozen_and_comes_back_by_itself() {
    Stage::new().await.plays("lost", &[]).await;
}

#[tokio::test]
async fn a_token_guards_the_page_and_stands_nowhere_in_it() {
    let mut stage = Stage::new().await;
    let token = "canary-token-of-the-admin-pages";
    let file = stage.world.secret(token).secret_file("admin", token);
    stage.world.set("OPSHIP_ADMIN__TOKEN", format!("file:{}", file.display()));
    stage.plays("guarded", &[("TOKEN", token)]).await;
}

#[tokio::test]
async fn everybody_can_read_and_use_the_page_in_both_themes_by_keyboard_and_on_a_phone() {
    Stage::new().await.plays("readable", &[]).await;
}
