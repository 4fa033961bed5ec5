//! Child processes with everything that they start.

use rustix::process::{Pid, Signal, kill_process_group};

/// A group of processes that ends with this value.
pub struct Group(Option<Pid>);

impl Group {
    /// Of a child that was started as the leader of a group of its own.
    pub fn of(leader: &tokio::process::Child) -> Self {
        let id = leader.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(Pid::from_raw))
    }
}

impl Group {
    /// Its leader has ended by itself: whatever it left behind was meant to stay.
    pub fn let_go(mut self) {
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
