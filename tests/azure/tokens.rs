//! The holder of tokens, against a scripted credential and paused time.

use crate::said;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::{Error, ErrorKind};
use azure_core::time::OffsetDateTime;
use opship::azure::Tokens;
use secrecy::ExposeSecret;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::advance;

/// Hands out `canary-token-0`, `canary-token-1`, and so on, or fails.
#[derive(Debug, Default)]
pub struct Desk {
    /// Seconds a token lives; `None` fails.
    life: Mutex<Option<i64>>,
    asked: AtomicUsize,
    /// When set, answers wait until told.
    gate: Mutex<Option<Arc<Notify>>>,
}

impl Desk {
    pub fn open(life: i64) -> Arc<Self> {
        Arc::new(Self { life: Mutex::new(Some(life)), ..Self::default() })
    }

    fn set(&self, life: Option<i64>) {
        *self.life.lock().unwrap() = life;
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub fn tokens(self: &Arc<Self>) -> Arc<Tokens> {
        Arc::new(Tokens::new(self.clone(), "scope-1"))
    }
}

#[async_trait::async_trait]
impl TokenCredential for Desk {
    async fn get_token(&self, scopes: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        assert_eq!(scopes, ["scope-1"]);
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.notified().await;
        }
        let life = *self.life.lock().unwrap();
        let life = life.ok_or_else(|| Error::with_message(ErrorKind::Credential, "the desk is closed"))?;
        let ends = OffsetDateTime::now_utc() + azure_core::time::Duration::seconds(life);
        Ok(AccessToken::new(format!("canary-token-{number}"), ends))
    }
}

async fn number(tokens: &Tokens) -> usize {
    let token = tokens.token().await.unwrap();
    token.expose_secret().rsplit_once('-').unwrap().1.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_token_is_reused_for_half_of_its_life_and_then_renewed() {
    let desk = Desk::open(3600);
    let tokens = desk.tokens();
    assert_eq!(number(&tokens).await, 0);
    advance(Duration::from_secs(1790)).await;
    assert_eq!((number(&tokens).await, desk.asked()), (0, 1));
    advance(Duration::from_secs(20)).await;
    assert_eq!((number(&tokens).await, desk.asked()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn the_old_token_serves_to_its_end_while_renewing_fails_once_a_minute() {
    let desk = Desk::open(3600);
    let tokens = desk.tokens();
    number(&tokens).await;
    desk.set(None);
    advance(Duration::from_secs(1810)).await;
    for _ in 0..100 {
        assert_eq!(number(&tokens).await, 0);
    }
    assert_eq!(desk.asked(), 2);
    advance(Duration::from_secs(61)).await;
    assert_eq!((number(&tokens).await, desk.asked()), (0, 3));
    // The last five minutes, in which the SDK gives up.
    advance(Duration::from_secs(1700)).await;
    assert_eq!(number(&tokens).await, 0);
    advance(Duration::from_secs(60)).await;
    let text = said(&tokens.token().await.unwrap_err());
    assert!(text.contains("scope-1") && text.contains("the desk is closed"), "{text}");
    desk.set(Some(3600));
    number(&tokens).await;
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_token_is_never_given_again() {
    let desk = Desk::open(3600);
    let tokens = desk.tokens();
    number(&tokens).await;
    tokens.forget();
    assert_eq!(number(&tokens).await, 1);
}

#[tokio::test(start_paused = true)]
async fn one_request_serves_all_who_wait_whether_it_succeeds_or_fails() {
    for life in [Some(3600), None] {
        let desk = Desk::open(3600);
        desk.set(life);
        let gate = Arc::new(Notify::new());
        *desk.gate.lock().unwrap() = Some(gate.clone());
        let tokens = desk.tokens();
        let calls: Vec<_> = (0..8)
            .map(|_| {
                tokio::spawn({
                    let tokens = tokens.clone();
                    async move { tokens.token().await }
                })
            })
            .collect();
        while desk.asked() == 0 {
            tokio::task::yield_now().await;
        }
        advance(Duration::from_millis(1)).await;
        gate.notify_one();
        for call in calls {
            assert_eq!(call.await.unwrap().is_ok(), life.is_some());
        }
        assert_eq!(desk.asked(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_says_it_has_ended_is_used_once_because_clocks_differ() {
    let desk = Desk::open(-5);
    let tokens = desk.tokens();
    assert_eq!((number(&tokens).await, number(&tokens).await), (0, 1));
}

#[tokio::test]
async fn the_holder_shows_its_scope_and_no_token() {
    let desk = Desk::open(3600);
    let tokens = desk.tokens();
    number(&tokens).await;
    let text = format!("{tokens:?}");
    assert!(text.contains("scope-1") && !text.contains("canary"));
}
