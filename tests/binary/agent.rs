//! A child process of the program, ended by its id at the latest when its handle goes.

use crate::canary::Canary;
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// No command of these tests takes longer, on a loaded machine either.
const EXIT_DEADLINE: Duration = Duration::from_secs(170);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);

pub struct Agent {
    child: Child,
    started: Instant,
    out: PathBuf,
    err: PathBuf,
    canary: Canary,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Ran {
    /// Absent when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Agent {
    /// Starts `opship ARGS` with this environment and nothing else, in `home`.
    pub fn start(home: &Path, args: &[&str], env: impl IntoIterator<Item = (String, String)>, canary: Canary) -> Self {
        Self::start_by(&[env!("CARGO_BIN_EXE_opship")], home, args, env, canary)
    }

    /// The same by way of a command that ends as the program itself (`exec`).
    pub fn start_by(
        launcher: &[&str],
        home: &Path,
        args: &[&str],
        env: impl IntoIterator<Item = (String, String)>,
        canary: Canary,
    ) -> Self {
        let name = uuid::Uuid::new_v4();
        let (out, err) = (home.join(format!("{name}.out")), home.join(format!("{name}.err")));
        let file = |path: &Path| Stdio::from(std::fs::File::create(path).unwrap());
        let child = Command::new(launcher[0])
            .args(&launcher[1..])
            .args(args)
            .env_clear()
            .envs(env)
            // Where scripts/proof/coverage collects what ran.
            .envs(std::env::var("LLVM_PROFILE_FILE").map(|file| ("LLVM_PROFILE_FILE", file)))
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(file(&out))
            .stderr(file(&err))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let agent = Self { child, started: Instant::now(), out, err, canary };
        agent.look_at_the_command_line();
        agent
    }

    /// Everyone on the machine may read it (unlike the environment, which the kernel shows to the same user alone).
    fn look_at_the_command_line(&self) {
        let line = std::fs::read(format!("/proc/{}/cmdline", self.id())).unwrap_or_default();
        assert_eq!(self.canary.found(&line), None, "a secret stands in the command line");
    }

    /// Of a process that has not been waited for.
    pub fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap_or_default()
    }

    pub fn stdout(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap_or_default()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn terminate(&self) {
        self.look_at_the_command_line();
        self.signal(Signal::TERM);
    }

    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.id()).unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// kill -9.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
        self.ended(ExitStatus::default());
    }

    /// SIGTERM, then the end.
    pub async fn stop(self) -> Ran {
        let asked = Instant::now();
        self.terminate();
        Ran { took: asked.elapsed(), ..self.end().await }.timed(asked)
    }

    /// Waits for the end. What the process said must hold no secret.
    pub async fn end(mut self) -> Ran {
        let Ok(status) = tokio::time::timeout(EXIT_DEADLINE, self.child.wait()).await else {
            panic!("the process did not end in time; it said:\n{}", self.stderr());
        };
        self.ended(status.unwrap())
    }

    fn ended(&self, status: ExitStatus) -> Ran {
        let stdout = std::fs::read_to_string(&self.out).unwrap();
        let ran = Ran { code: status.code(), stdout, stderr: self.stderr(), took: self.started.elapsed() };
        for said in [&ran.stdout, &ran.stderr] {
            assert_eq!(self.canary.found(said.as_bytes()), None, "a secret was printed: {ran:?}");
        }
        assert!(!ran.stderr.contains("panicked at"), "{}", ran.stderr);
        ran
    }
}

impl Ran {
    fn timed(self, since: Instant) -> Self {
        Self { took: since.elapsed(), ..self }
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Asserts that each part stands on stdout or stderr.
    #[track_caller]
    pub fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            let said = self.stdout.contains(part) || self.stderr.contains(part);
            assert!(said, "{part:?} is not in\n{}\nnor in\n{}", self.stdout, self.stderr);
        }
        self
    }
}

/// Looks until the condition holds, for `deadline` at most.
#[track_caller]
pub fn wait_until(what: &str, deadline: Duration, mut holds: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        let started = Instant::now();
        while !holds() {
            assert!(started.elapsed() < deadline, "{place}: {what}: not within {deadline:?}");
            tokio::time::sleep(LOOK).await;
        }
    }
}
