//! decode: every item of a page is kept, as it stands and under the id that it names itself.

use crate::json;
use opship::flow::decode::{self, COLUMNS, Item, column_of};
use opship::flow::{CURSOR_BYTES_MAX, EventId, Hour, page, scan};
use serde_json::value::RawValue;

pub fn check(data: &[u8]) {
    let (text, _) = decode::text(data);
    a_page_is_read_as_its_json_says(&text);
    a_bad_item_leaves_its_neighbours_alone(&text);
    an_item_is_what_it_says(&text, &decode::item(&text));
}

fn a_page_is_read_as_its_json_says(text: &str) {
    let page = decode::page(text);
    let Some(members) = json::members(text) else {
        // No JSON as a whole: what is read all the same stands in the text.
        for item in page.iter().flat_map(|page| &page.items) {
            assert!(text.contains(item.raw) && !item.raw.is_empty());
        }
        return;
    };
    let values =
        |name: &str| members.iter().filter(|(key, _)| key == name).map(|(_, value)| *value).collect::<Vec<_>>();
    let (cursors, mores, lists) = (values("cursor"), values("has_more"), values("items"));
    if cursors.len() > 1 || mores.len() > 1 || lists.len() > 1 {
        assert!(page.is_err(), "a key that is there twice is a failed request");
        return;
    }
    let cursor = cursors.first().and_then(|value| json::text(value));
    let cursor = cursor.filter(|text| !text.is_empty() && text.len() <= CURSOR_BYTES_MAX);
    let has_more = mores.first().and_then(|value| value.parse::<bool>().ok());
    let items = lists.first().and_then(|value| match *value {
        "null" => Some(Vec::new()),
        list => serde_json::from_str::<Vec<&RawValue>>(list).ok(),
    });
    let items = items.filter(|items| items.len() <= page::ITEMS_MAX);
    let (Some(cursor), Some(has_more), Some(items)) = (cursor, has_more, items) else {
        assert!(page.is_err(), "an answer without cursor, has_more or a list is a failed request");
        return;
    };
    let page = page.expect("a well-formed page");
    assert_eq!((page.cursor.as_str(), page.has_more, page.items.len()), (cursor.as_str(), has_more, items.len()));
    for (item, raw) in page.items.iter().zip(items) {
        assert_eq!(item.raw, raw.get());
        an_item_is_what_it_says(item.raw, item);
    }
}

fn a_bad_item_leaves_its_neighbours_alone(text: &str) {
    let is_one_item = scan::array(&format!("[{text}]"), 1).is_some_and(|items| items.len() == 1);
    if !is_one_item {
        return;
    }
    let page = format!(r#"{{"cursor":"c","has_more":true,"items":[{{"uuid":"FIRST"}},{text},{{"uuid":"LAST"}}]}}"#);
    let page = decode::page(&page).expect("a page whose structure is whole");
    let ids: Vec<EventId> = page.items.iter().map(|item| item.key.id).collect();
    assert_eq!(ids.len(), 3);
    assert_eq!((ids[0], ids[2]), (EventId::of_uuid("FIRST"), EventId::of_uuid("LAST")));
}

pub fn an_item_is_what_it_says(raw: &str, item: &Item<'_>) {
    assert_eq!(item.raw, raw);
    let filled = item.fields.iter().flatten().count();
    let unknown = item.unknown_fields as usize;
    let Some(members) = json::members(raw) else {
        let mut parts = 0;
        let is_whole = scan::each_member(raw, |_| parts += 1).is_some();
        assert_eq!(item.is_object, is_whole);
        assert!(filled + unknown + item.mangled.len() <= parts);
        return;
    };
    assert!(item.is_object && item.mangled.is_empty());
    for column in &COLUMNS {
        assert_eq!(item.field(column.field), json::first(&members, column.field), "{}", column.field);
    }
    let is_lost = |(name, value): &&(String, &str)| match column_of(name) {
        Some(_) => *value != "null" && item.field(name) != Some(value),
        None => true,
    };
    let lost = members.iter().filter(is_lost).count();
    assert!(lost <= unknown && unknown + filled <= members.len(), "{lost} fields lost, {unknown} counted");
    let plain = |name: &str| json::first(&members, name).and_then(json::text).filter(|text| !text.is_empty());
    let uuid = plain("uuid");
    let id = uuid.as_deref().map_or_else(|| EventId::of_raw(raw.as_bytes()), EventId::of_uuid);
    assert_eq!(item.key.id, id);
    assert_eq!(item.timestamp, plain("timestamp").and_then(|text| decode::timestamp(&text)));
    assert_eq!(item.key.hour, Hour::of(item.timestamp));
    if let Some(uuid) = uuid {
        a_canonical_uuid_can_be_read_back(&uuid, id);
    }
}

/// 26 base32 digits whose last two bits are zero are the 16 bytes themselves, so no two of them are one id.
fn a_canonical_uuid_can_be_read_back(uuid: &str, id: EventId) {
    const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let bits = u128::from_be_bytes(id.0);
    let digit = |place: u32| match place {
        25 => (bits << 2) & 31,
        place => (bits >> (123 - 5 * place)) & 31,
    };
    let back: Vec<u8> = (0..26).map(|place| DIGITS[digit(place) as usize]).collect();
    let place_of = |b: &u8| DIGITS.iter().position(|digit| digit == b);
    let is_canonical = uuid.len() == 26
        && uuid.bytes().all(|b| place_of(&b).is_some())
        && place_of(&uuid.as_bytes()[25]).is_some_and(|last| last % 4 == 0);
    assert_eq!(back == uuid.as_bytes(), is_canonical, "{uuid}");
}
