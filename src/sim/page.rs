//! A page of events on its way out, and what can be wrong with it.

use super::fault::PageFault;
use super::reply::Reply;
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::json;

/// A page before it is written.
pub(super) struct Page {
    pub(super) cursor: Option<String>,
    pub(super) has_more: Option<bool>,
    pub(super) items: Items,
}

pub(super) enum Items {
    Some(Vec<Bytes>),
    Null,
    Missing,
}

/// What a faulty page needs to know about its place in the stream.
pub(super) struct Place {
    /// The cursor that led here, or would lead here again.
    pub(super) same_cursor: String,
    /// Another cursor that leads here.
    pub(super) other_cursor: String,
    /// Items before this page, as many as [`PageFault::Overlap`] asks for.
    pub(super) before: Vec<Bytes>,
}

impl Page {
    /// Bends the page.
    pub(super) fn bend(&mut self, fault: PageFault, place: &Place) {
        match fault {
            PageFault::EmptyObject => *self = Self { cursor: None, has_more: None, items: Items::Missing },
            PageFault::MissingCursor => self.cursor = None,
            PageFault::MissingHasMore => self.has_more = None,
            PageFault::MissingItems => self.items = Items::Missing,
            PageFault::NullItems => self.items = Items::Null,
            PageFault::SameCursor => self.lead_to(&place.same_cursor),
            PageFault::SameCursorEmpty => {
                self.items = Items::Some(Vec::new());
                self.lead_to(&place.same_cursor);
            }
            PageFault::EmptyPage => {
                self.items = Items::Some(Vec::new());
                self.lead_to(&place.other_cursor);
            }
            PageFault::MoreForever => self.has_more = Some(true),
            PageFault::MoreDenied => self.has_more = Some(false),
            // The limit was lifted when the page was read.
            PageFault::Oversized { .. } => {}
            PageFault::LongCursor { bytes } => self.cursor = Some("A".repeat(bytes)),
            PageFault::DuplicateInside
            | PageFault::Overlap { .. }
            | PageFault::ChangedCopy
            | PageFault::Reversed
            | PageFault::UnknownField => self.bend_items(fault, place),
        }
    }

    fn lead_to(&mut self, cursor: &str) {
        self.cursor = Some(cursor.to_owned());
        self.has_more = Some(true);
    }

    fn bend_items(&mut self, fault: PageFault, place: &Place) {
        let Items::Some(items) = &mut self.items else { return };
        match fault {
            PageFault::DuplicateInside => items.extend(items.first().cloned()),
            PageFault::ChangedCopy => items.extend(items.first().map(|item| with_field(item, "opship_sim_changed"))),
            PageFault::Overlap { .. } => drop(items.splice(..0, place.before.iter().cloned())),
            PageFault::Reversed => items.reverse(),
            PageFault::UnknownField => {
                items.iter_mut().for_each(|item| *item = with_field(item, "opship_sim_unknown"));
            }
            PageFault::EmptyObject
            | PageFault::MissingCursor
            | PageFault::MissingHasMore
            | PageFault::MissingItems
            | PageFault::NullItems
            | PageFault::SameCursor
            | PageFault::SameCursorEmpty
            | PageFault::EmptyPage
            | PageFault::MoreForever
            | PageFault::MoreDenied
            | PageFault::Oversized { .. }
            | PageFault::LongCursor { .. } => {}
        }
    }

    /// Splices the items, unparsed, into the answer.
    pub(super) fn into_reply(self) -> Reply {
        let bytes =
            if let Items::Some(items) = &self.items { items.iter().map(|item| item.len() + 1).sum() } else { 0 };
        let mut body = BytesMut::with_capacity(bytes + 512);
        let mut separator = "{";
        if let Some(cursor) = &self.cursor {
            body.put_slice(format!("{separator}\"cursor\":{}", json!(cursor)).as_bytes());
            separator = ",";
        }
        if let Some(has_more) = self.has_more {
            body.put_slice(format!("{separator}\"has_more\":{has_more}").as_bytes());
            separator = ",";
        }
        match &self.items {
            Items::Missing if separator == "{" => body.put_u8(b'{'),
            Items::Missing => {}
            Items::Null => body.put_slice(format!("{separator}\"items\":null").as_bytes()),
            Items::Some(items) => {
                body.put_slice(format!("{separator}\"items\":[").as_bytes());
                put_joined(&mut body, items);
                body.put_u8(b']');
            }
        }
        body.put_u8(b'}');
        Reply::raw_json(200, body.freeze())
    }
}

fn put_joined(body: &mut BytesMut, items: &[Bytes]) {
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            body.put_u8(b',');
        }
        body.put_slice(item);
    }
}

/// The item with one more field at its end; an item that is no object stays as it is.
fn with_field(item: &Bytes, name: &str) -> Bytes {
    match item.strip_suffix(b"}") {
        Some(begin) => [begin, format!(",\"{name}\":{{\"list\":[1,null,\"two\"]}}}}").as_bytes()].concat().into(),
        None => item.clone(),
    }
}
