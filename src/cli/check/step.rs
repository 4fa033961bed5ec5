//! One step of `check`: what it waits for, how long it may take, what became of it.

use crate::cli::Exit;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest time of one step: a network that swallows everything must give an answer within a minute. Longer than a store waits for
/// its lock, so that the process that holds it is named.
pub(crate) const STEP_DEADLINE: Duration = Duration::from_secs(25);

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    /// It works, and something about it will hurt later.
    Warn,
    Fail,
    /// Another step has to succeed first.
    Skipped,
}

impl Status {
    /// As in the JSON output.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skipped => "skipped",
        }
    }
}

/// What was found, and what to do about it.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) status: Status,
    pub(crate) said: String,
    pub(crate) remedy: Option<String>,
    /// What a failure makes of the exit code.
    pub(crate) exit: Exit,
}

impl Finding {
    pub(crate) fn ok(said: impl Into<String>) -> Self {
        Self { status: Status::Ok, said: said.into(), remedy: None, exit: Exit::Done }
    }

    pub(crate) fn warn(said: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status: Status::Warn, said: said.into(), remedy: Some(remedy.into()), exit: Exit::Done }
    }

    pub(crate) fn fail(exit: Exit, said: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status: Status::Fail, said: said.into(), remedy: Some(remedy.into()), exit }
    }

    pub(crate) fn skipped(needs: &str) -> Self {
        Self { status: Status::Skipped, said: format!("needs {needs}"), remedy: None, exit: Exit::Done }
    }
}

/// A step that is over.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) step: &'static str,
    /// Which account, feed or place; empty where there is only one.
    pub(crate) of: String,
    pub(crate) finding: Finding,
    pub(crate) took: Duration,
    /// Why it was skipped: the title of the step that failed.
    root: Option<String>,
}

impl Step {
    pub(crate) fn title(&self) -> String {
        if self.of.is_empty() { self.step.to_owned() } else { format!("{} {}", self.step, self.of) }
    }

    /// What later steps have to wait for in vain.
    pub(crate) fn blocks(&self) -> Option<String> {
        match self.finding.status {
            Status::Ok | Status::Warn => None,
            Status::Fail => Some(self.title()),
            Status::Skipped => Some(self.root.clone().unwrap_or_else(|| self.title())),
        }
    }
}

/// A step on its way. Whoever polls it drives it; all who wait for it get the same outcome.
pub(crate) type Pending = Shared<BoxFuture<'static, Arc<Step>>>;

/// A step before it has work.
pub(crate) struct Plan {
    step: &'static str,
    of: String,
    needs: Vec<Pending>,
    after: Vec<Pending>,
}

impl Plan {
    pub(crate) fn new(step: &'static str, of: impl Into<String>) -> Self {
        Self { step, of: of.into(), needs: Vec::new(), after: Vec::new() }
    }

    /// Skipped unless these succeed.
    pub(crate) fn needs<'a>(mut self, steps: impl IntoIterator<Item = &'a Pending>) -> Self {
        self.needs.extend(steps.into_iter().cloned());
        self
    }

    /// Not before these are over, however they ended.
    pub(crate) fn after<'a>(mut self, steps: impl IntoIterator<Item = &'a Pending>) -> Self {
        self.after.extend(steps.into_iter().cloned());
        self
    }

    pub(crate) fn run(self, work: impl Future<Output = Finding> + Send + 'static) -> Pending {
        let Self { step, of, needs, after } = self;
        let whole = async move {
            for other in after {
                other.await;
            }
            for need in needs {
                if let Some(root) = need.await.blocks() {
                    let finding = Finding::skipped(&root);
                    return Arc::new(Step { step, of, finding, took: Duration::ZERO, root: Some(root) });
                }
            }
            let begun = Instant::now();
            let finding = tokio::time::timeout(STEP_DEADLINE, work).await.unwrap_or_else(|_| late());
            Arc::new(Step { step, of, finding, took: begun.elapsed(), root: None })
        };
        whole.boxed().shared()
    }
}

fn late() -> Finding {
    let said = format!("no answer within {} s", STEP_DEADLINE.as_secs());
    let remedy = "something on the way swallows the packets: check the firewall, http.proxy and DNS (for a folder: the mount), then check again";
    Finding::fail(Exit::Failed, said, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_step_that_hangs_fails_at_its_deadline_and_what_needs_it_names_it() {
        let hung = Plan::new("connection", "a").run(std::future::pending());
        let skipped = Plan::new("token", "a").needs([&hung]).run(async { Finding::ok("never") });
        let further = Plan::new("stream", "a").needs([&skipped]).run(async { Finding::ok("never") });
        let independent = Plan::new("store", "").after([&hung]).run(async { Finding::ok("works") });
        let begun = tokio::time::Instant::now();
        let steps = futures_util::future::join_all([hung, skipped, further, independent]).await;
        assert_eq!(begun.elapsed(), STEP_DEADLINE);
        let said: Vec<_> = steps.iter().map(|step| (step.finding.status, step.finding.said.as_str())).collect();
        let (late, needs) = ("no answer within 25 s", "needs connection a");
        assert_eq!(
            said,
            [(Status::Fail, late), (Status::Skipped, needs), (Status::Skipped, needs), (Status::Ok, "works")]
        );
    }
}
