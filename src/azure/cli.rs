//! Runs `az` for the SDK, which waits for it without end: here it has a deadline, and takes its children along.

use azure_identity as sdk;
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsStr;
use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};

/// `az` starts a Python of its own, and may ask the network.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);
/// Largest output read: a token has a few kilobytes.
const OUTPUT_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Debug)]
pub(super) struct Az;

#[async_trait::async_trait]
impl sdk::Executor for Az {
    async fn run(&self, program: &OsStr, args: &[&OsStr]) -> io::Result<Output> {
        let mut command = tokio::process::Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.process_group(0).kill_on_drop(true).spawn()?;
        // Whoever drops this future, or its deadline, ends all of them.
        let group = Group::of(&child);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let ran = async {
            let (status, stdout, stderr) = tokio::join!(child.wait(), all_of(stdout), all_of(stderr));
            Ok::<_, io::Error>(Output { status: status?, stdout: stdout?, stderr: stderr? })
        };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "az did not end within 30 s and was killed");
        let output = tokio::time::timeout(DEADLINE, ran).await.map_err(late)??;
        group.let_go();
        Ok(output)
    }
}

async fn all_of(stream: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// A group of processes that ends with this value.
struct Group(Option<Pid>);

impl Group {
    /// Of a child that was started as the leader of a group of its own.
    fn of(leader: &tokio::process::Child) -> Self {
        let id = leader.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }
}

impl Group {
    /// Its leader has ended by itself: whatever it left behind was meant to stay.
    fn let_go(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // One that has ended already is nobody's any more.
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
