//! The new items of one page on their way into batches: filter, map, pack.

use super::dead_letters::{ROW_REFUSED, ROW_TOO_LARGE, in_full};
use crate::agent::reading::apart::apart;
use crate::agent::{Drained, Settings};
use crate::flow::checkpoint::Totals;
use crate::flow::decode::{Item, Page};
use crate::flow::dedupe::Sorted;
use crate::flow::map::{Changes, Mapper, Stub};
use crate::flow::pack::{Batch, ROW_BYTES_MAX};
use crate::flow::planted::{self, Bug};
use crate::flow::{EventKey, Stream};
use crate::sink::SinkError;
use std::collections::VecDeque;

/// Whether `filter.drop_audit_actions` keeps an event from being shipped.
pub(crate) fn is_dropped(settings: &Settings, stream: Stream, item: &Item<'_>) -> bool {
    let drop = &settings.drop_audit_actions;
    stream == Stream::AuditEvents
        && !drop.is_empty()
        && item.text("action").is_some_and(|action| drop.contains(&action))
}

/// Maps rows only as a batch has room for them, so that a 20 MB page costs one batch of memory beside itself.
pub(crate) struct Packing<'p, 'a> {
    page: &'p Page<'a>,
    mapper: Mapper<'p>,
    rows_max: usize,
    left: VecDeque<usize>,
    /// The row that did not fit the batch before.
    held: Option<(usize, Vec<u8>)>,
    /// Originals whose stub is in the batch under way.
    stubbed: Vec<(usize, String)>,
    /// Counted since it was last taken.
    pub counted: Totals,
    /// Items of the page that need no row: known, repeated or filtered.
    pub settled: Totals,
    pub shipped_any: bool,
    /// Something of the batch under way was accepted: the destination takes rows.
    pub takes_rows: bool,
    pub drained: Drained,
}

impl<'p, 'a> Packing<'p, 'a> {
    pub(crate) fn new(
        page: &'p Page<'a>,
        sorted: Sorted,
        stream: Stream,
        settings: &'p Settings,
        account_uuid: Option<&'p str>,
    ) -> Self {
        let is_dropped = |item: &Item<'_>| is_dropped(settings, stream, item);
        let found = sorted.new.len();
        let moved = sorted.moved.iter().filter_map(|place| page.items.get(*place)).filter(|item| !is_dropped(item));
        let moved = moved.count() as u64;
        let left: VecDeque<usize> =
            sorted.new.into_iter().filter(|place| !page.items.get(*place).is_some_and(is_dropped)).collect();
        let filtered = (found - left.len()) as u64;
        let settled = Totals {
            read: sorted.known + sorted.repeated + filtered,
            known: sorted.known,
            repeated: sorted.repeated,
            conflicts: sorted.conflicts.len() as u64,
            moved,
            filtered,
            pages: 1,
            ..Totals::default()
        };
        Self {
            page,
            mapper: settings.mapper(stream, account_uuid),
            rows_max: settings.batch_rows_max,
            left,
            held: None,
            stubbed: Vec::new(),
            counted: Totals::default(),
            settled,
            shipped_any: false,
            takes_rows: false,
            drained: Drained::default(),
        }
    }

    /// The next batch; `None` when every new item has been in one.
    pub(crate) fn next_batch(&mut self) -> Option<Batch> {
        self.takes_rows = false;
        let mut batch = Batch::default();
        while let Some((place, row)) = self.held.take().or_else(|| self.next_row()) {
            let item = self.page.items.get(place)?;
            if !batch.push(self.rows_max, item.key, item.timestamp, place, &row) {
                self.held = Some((place, row));
                break;
            }
        }
        if planted::is(Bug::LoseLastBatch) && self.shipped_any && self.is_done() {
            return None;
        }
        (!batch.is_empty()).then_some(batch)
    }

    /// Whether the batch handed out last was the page's last.
    pub(crate) fn is_done(&self) -> bool {
        self.left.is_empty() && self.held.is_none()
    }

    /// Originals to keep before their stubs are posted.
    pub(crate) fn take_stubbed(&mut self) -> Vec<(EventKey, String, String)> {
        let stubbed = std::mem::take(&mut self.stubbed);
        let original = |place: usize| {
            let item = self.page.items.get(place)?;
            Some((item.key, apart(item.raw.len(), || self.mapper.original(item))))
        };
        stubbed.into_iter().filter_map(|(place, why)| original(place).map(|(key, text)| (key, why, text))).collect()
    }

    /// A batch of the stub alone, for a row that the sink refuses. Its original is kept with the first one that is tried.
    pub(crate) fn stub_batch(&mut self, place: usize, size: Stub, error: &SinkError) -> Option<Batch> {
        let item = self.page.items.get(place)?;
        let mut row = Vec::new();
        if size == Stub::Ids {
            row = self.stub(place, item, ROW_REFUSED, Some(error));
        } else {
            self.mapper.stub(item, size, ROW_REFUSED, &mut row);
        }
        Some(Batch::of_one(item.key, item.timestamp, place, &row))
    }

    fn next_row(&mut self) -> Option<(usize, Vec<u8>)> {
        let place = self.left.pop_front()?;
        let item = self.page.items.get(place)?;
        let row = apart(item.raw.len(), || {
            let mut row = Vec::with_capacity(item.raw.len() + 64);
            let changes = self.mapper.row(item, &mut row);
            self.count(item, changes);
            if row.len() > ROW_BYTES_MAX {
                row = self.stub(place, item, ROW_TOO_LARGE, None);
            }
            row
        });
        Some((place, row))
    }

    fn stub(&mut self, place: usize, item: &Item<'_>, why: &str, error: Option<&SinkError>) -> Vec<u8> {
        let mut row = Vec::new();
        self.mapper.stub(item, Stub::Ids, why, &mut row);
        self.stubbed.push((place, in_full(why, error, item.raw)));
        self.counted.stubs += 1;
        row
    }

    fn count(&mut self, item: &Item<'_>, changes: Changes) {
        self.counted.cut += u64::from(changes.cut);
        self.counted.mistyped += u64::from(changes.mistyped);
        self.counted.redacted += u64::from(changes.redacted);
        self.counted.unknown_fields += u64::from(item.unknown_fields);
        self.counted.malformed += u64::from(!item.is_object || !item.has_uuid || item.timestamp.is_none());
    }
}
