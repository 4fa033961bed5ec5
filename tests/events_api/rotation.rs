//! Tokens: rotation without a restart, tokens that cannot be used, and no token in any text.

use crate::world::*;
use opship::config::ApiVersion;
use opship::flow::{Cursor, Stream, retry::Failure};
use opship::source::events_api::EventsApi;
use opship::source::{Answer, Lane, PageRequest, Source, SourceError};
use serde_json::json;

async fn page(source: &EventsApi) -> Result<Answer, SourceError> {
    let request = PageRequest::Continue(Cursor::parse("c".into()).unwrap());
    source.page(Stream::AuditEvents, &request, Lane::Live).await
}

fn unauthorized() -> Reply {
    reply(401, "", r#"{"status":401,"message":"Unauthorized access"}"#)
}

fn status(error: &SourceError) -> u16 {
    let Failure::Status { status, .. } = error.failure else { panic!("{error}") };
    status
}

#[tokio::test]
async fn a_rotated_token_is_picked_up_within_the_call_that_was_refused() {
    let world = World::new([ok("1"), unauthorized(), ok("2"), ok("3")]).await;
    let token = TokenFile::new("old\n");
    let source = source(&token, Some(&world.url), ApiVersion::V2);
    assert_eq!(page(&source).await.unwrap().body, "1");
    token.write(" new\r\n");
    assert_eq!(page(&source).await.unwrap().body, "2");
    assert_eq!(page(&source).await.unwrap().body, "3");
    assert_eq!(world.tokens(), ["old", "old", "new", "new"]);
}

#[tokio::test]
async fn streams_refused_together_all_go_on_with_the_new_token() {
    let both = Reply::After(3, Box::new(unauthorized()));
    let world = World::new([ok(""), both.clone(), both, ok(""), ok("")]).await;
    let token = TokenFile::new("old");
    let source = source(&token, Some(&world.url), ApiVersion::V2);
    page(&source).await.unwrap();
    token.write("new");
    let (one, other) = tokio::join!(page(&source), page(&source));
    assert!(one.is_ok() && other.is_ok());
    assert_eq!(world.tokens(), ["old", "old", "old", "new", "new"]);
}

#[tokio::test]
async fn a_token_that_did_not_change_is_not_tried_again_and_the_next_call_reads_it_first() {
    let world = World::new([unauthorized(), ok("back")]).await;
    let token = TokenFile::new("old");
    let source = source(&token, Some(&world.url), ApiVersion::V2);
    assert_eq!(status(&page(&source).await.unwrap_err()), 401);
    assert_eq!(world.tokens(), ["old"]);
    token.write("new");
    assert_eq!(page(&source).await.unwrap().body, "back");
    assert_eq!(world.tokens(), ["old", "new"]);
}

#[tokio::test]
async fn a_new_token_is_tried_once() {
    let world = World::new([ok(""), unauthorized(), unauthorized()]).await;
    let token = TokenFile::new("old");
    let source = source(&token, Some(&world.url), ApiVersion::V2);
    page(&source).await.unwrap();
    token.write("new");
    assert_eq!(status(&page(&source).await.unwrap_err()), 401);
    assert_eq!(world.tokens(), ["old", "old", "new"]);
}

#[tokio::test]
async fn a_refusal_stays_a_refusal_when_the_secret_cannot_be_read_again() {
    let world = World::new([ok(""), unauthorized()]).await;
    let token = TokenFile::new("old");
    let source = source(&token, Some(&world.url), ApiVersion::V2);
    page(&source).await.unwrap();
    std::fs::remove_file(token.path()).unwrap();
    let error = page(&source).await.unwrap_err();
    assert_eq!(status(&error), 401);
    assert!(all_texts(&error).contains("read the secret file:"));
    assert_eq!(page(&source).await.unwrap_err().failure, Failure::NoCredential);
}

#[tokio::test]
async fn a_rotated_token_of_another_service_leads_there_unless_events_url_is_set() {
    for pinned in [false, true] {
        let (first, second) = (World::new([unauthorized(), ok("here")]).await, World::new([ok("there")]).await);
        let token = |world: &World| jwt(&json!({"aud": [world.url]}));
        let file = TokenFile::new(&token(&first));
        let events_url = pinned.then_some(first.url.as_str());
        let source = source(&file, events_url, ApiVersion::V2);
        assert_eq!(status(&page(&source).await.unwrap_err()), 401);
        file.write(&token(&second));
        assert_eq!(page(&source).await.unwrap().body, if pinned { "here" } else { "there" });
        assert_eq!(source.place(), if pinned { first.url.clone() } else { second.url.clone() });
        assert_eq!(second.journal().len(), usize::from(!pinned));
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_used_is_not_sent_and_says_what_to_do() {
    let old = jwt(&json!({"aud": ["com.1password.streamingservice"]}));
    let far = jwt(&json!({"aud": ["evil.example"]}));
    let clear = jwt(&json!({"aud": ["http://events.1password.com"]}));
    for (token, says) in [
        ("", "accounts.acme.token: the token is empty"),
        (" \n", "accounts.acme.token: the token is empty"),
        ("to\nken", "control"),
        ("ops_eyJzaWduSW4", "service account"),
        ("a.$$$.c", "set accounts.acme.events_url"),
        ("opaque", "set accounts.acme.events_url"),
        (&old, "set accounts.acme.events_url"),
        (&far, "delivery.allow_hosts"),
        (&clear, "not https"),
    ] {
        let error = page(&source(&TokenFile::new(token), None, ApiVersion::V2)).await.unwrap_err();
        assert_eq!(error.failure, Failure::NoCredential);
        assert!(all_texts(&error).contains(says), "{token:?}: {}", all_texts(&error));
    }
}

#[tokio::test]
async fn a_token_never_travels_in_the_clear_to_another_machine() {
    let source = source(&TokenFile::new("t"), Some("http://192.0.2.1"), ApiVersion::V2);
    let error = page(&source).await.unwrap_err();
    assert_eq!(error.failure, Failure::NoCredential);
    assert!(all_texts(&error).contains("not https"));
}

#[tokio::test]
async fn no_text_ever_holds_the_token_or_a_login_in_the_url() {
    let token = jwt(&json!({"aud": ["evil.example"], "sub": "SYNTHETIC"}));
    let parts: Vec<&str> = token.split('.').collect();
    let echo = |status| reply(status, "", r#"{"message":"no"}"#);
    let world = World::new([unauthorized(), echo(500), Reply::Raw(b"garbage\r\n\r\n".to_vec())]).await;
    let with_login = world.url.replace("http://", "http://user:hunter2@");
    let file = TokenFile::new(&token);
    let known = source(&file, Some(&with_login), ApiVersion::V2);
    let stray = source(&file, None, ApiVersion::V2);
    let refused = source(&file, Some("http://127.0.0.1:1/?sig=hunter2"), ApiVersion::V2);
    for source in [&known, &known, &known, &stray, &refused] {
        let text = all_texts(&page(source).await.unwrap_err()) + &source.place();
        assert!(parts.iter().all(|part| !text.contains(part)) && !text.contains("hunter2"), "{text}");
    }
    assert_eq!(world.tokens(), [token.as_str(); 3]);
}
