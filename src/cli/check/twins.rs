//! The part of `check` that looks whether two entries of the configuration are one 1Password account.

use super::source::Subject;
use super::step::Finding;
use crate::agent::chain;
use crate::cli::{CliError, Exit};
use crate::flow::checkpoint::Fingerprints;
use crate::flow::identity::Identity;
use crate::flow::{FeedId, Stream};
use crate::store::Store;
use crate::store::checkpoints::CheckpointError;
use crate::store::owners::{Claim, Twin};
use crate::wire::Outside;
use std::sync::Arc;

/// Every entry under examination.
pub(crate) type Subjects = Arc<Vec<Arc<Subject>>>;

/// The entry that ships a stream of this account instead, by the store, else the first by name; nothing is written.
///
/// # Errors
/// The store.
pub(crate) async fn twin(
    subject: &Subject,
    all: &Subjects,
    outside: &Outside,
    store: Option<&Arc<dyn Store>>,
) -> Result<Option<Twin>, CheckpointError> {
    let owners = store.map(|store| outside.owners(store.clone()));
    for stream in &subject.account.streams {
        let Some(claim) = claim(subject, *stream, outside) else { return Ok(None) };
        let stored = match &owners {
            Some(owners) => owners.owner_of(&claim).await?,
            None => None,
        };
        let twin = match (stored, &owners) {
            (Some(owner), Some(owners)) => owners.rule(&claim, &owner),
            _ => first_by_name(&claim, all, outside),
        };
        if twin.is_some() {
            return Ok(twin);
        }
    }
    Ok(None)
}

/// What the failed step says.
pub(crate) fn told(twin: &Twin) -> Finding {
    Finding::fail(Exit::Usage, twin.to_string(), twin.remedy())
}

/// A store that could not be asked.
pub(crate) fn unread(error: CheckpointError) -> Finding {
    let error = CliError::Checkpoint(error);
    Finding::fail(error.exit(), chain(&error), "upgrade this program where that is asked for, else check the store")
}

/// `None` where nobody knows yet who the account is or where it goes: other steps say why.
fn claim(subject: &Subject, stream: Stream, outside: &Outside) -> Option<Claim> {
    let who = subject.who.get()?;
    let now = Fingerprints::new("", who.account_uuid.as_deref(), &outside.sink_place().ok()?);
    let feed = FeedId { account: subject.name.clone(), stream };
    let account = Identity::new([&now], &who.token);
    Some(Claim { feed, account, token: Some(who.token.clone()), sink: now.sink })
}

/// Nobody has shipped it yet: of two that are about to, the first by name is as good as the other.
fn first_by_name(claim: &Claim, all: &Subjects, outside: &Outside) -> Option<Twin> {
    let stream = claim.feed.stream;
    let is_one = |other: &&Arc<Subject>| {
        other.account.streams.contains(&stream)
            && self::claim(other, stream, outside).is_some_and(|theirs| theirs.account == claim.account)
    };
    let first = all.iter().filter(is_one).map(|subject| &subject.name).min()?;
    (*first != claim.feed.account).then(|| Twin::of_configured(&claim.feed, first.clone()))
}
