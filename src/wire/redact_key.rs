//! Whether pseudonyms are made with the key that they were made with before.

use crate::flow::redact::Redact;
use crate::store::{Expect, Key, Store, StoreError};

/// Where the fingerprint of the key is kept.
const PLACE: &str = "settings/redact_key";

/// Says so when the key of the pseudonyms is another one than at the last start, or gone: equal values have other pseudonyms from now on. It
/// is read at the start alone, because a half-written file would make wrong pseudonyms for good.
///
/// # Errors
/// The store.
pub(super) async fn tell_a_change(store: &dyn Store, redact: &Redact) -> Result<(), StoreError> {
    let key = Key::new(PLACE);
    let now = redact.key_fingerprint().unwrap_or_else(|| "none".into());
    let before = store.get(&key).await?.map(|kept| String::from_utf8_lossy(&kept.bytes).into_owned());
    match before {
        Some(before) if before == now => return Ok(()),
        None if now == "none" => return Ok(()),
        Some(_) => {
            let remedy = "if that was not meant, put the former key back and restart: rows of before and after cannot be joined by these columns";
            tracing::error!(
                remedy,
                "filter.redact_key is another one than before: equal values have other pseudonyms from now on"
            );
        }
        None => {}
    }
    store.put(&key, now.into_bytes().into(), Expect::Anything).await?;
    Ok(())
}
