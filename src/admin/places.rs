//! Places for connections: never a queue. Who is idle longest gives way, and a few places are kept for the probes.

use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a connection on this place may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whatever there is.
    Ordinary,
    /// One probe: every ordinary place is busy.
    Kept,
}

/// Every place there is.
pub(super) struct Places {
    ordinary_max: usize,
    kept_max: usize,
    seats: Mutex<Vec<Arc<Seat>>>,
}

/// One connection.
struct Seat {
    kind: Kind,
    doing: Mutex<Doing>,
    /// Fires when the place is given to another.
    gone: CancellationToken,
}

struct Doing {
    /// Answers that are not out of our hands yet.
    answers: usize,
    /// The client does not take what it asked for.
    blocked: bool,
    /// Of the last change.
    since: Instant,
}

/// A place that is taken until it is dropped.
pub(super) struct Place {
    seat: Arc<Seat>,
    places: Arc<Places>,
}

/// An answer on its way; until it is dropped the connection is not idle.
pub(super) struct Answering(Arc<Seat>);

impl Seat {
    fn doing(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock()
    }

    fn change(&self, change: impl FnOnce(&mut Doing)) {
        let mut doing = self.doing();
        change(&mut doing);
        doing.since = Instant::now();
    }

    fn idle_since(&self) -> Option<Instant> {
        let doing = self.doing();
        (doing.answers == 0 && !doing.blocked).then_some(doing.since)
    }
}

impl Places {
    pub(super) fn new(ordinary_max: usize, kept_max: usize) -> Arc<Self> {
        Arc::new(Self { ordinary_max, kept_max, seats: Mutex::default() })
    }

    fn seats(&self) -> MutexGuard<'_, Vec<Arc<Seat>>> {
        self.seats.lock()
    }

    /// A place, at once: a free one, else that of whoever is idle longest, else one that is kept for probes.
    pub(super) fn take(self: &Arc<Self>) -> Place {
        let mut seats = self.seats();
        let count = |seats: &[Arc<Seat>], kind| seats.iter().filter(|seat| seat.kind == kind).count();
        let is_free = count(&seats, Kind::Ordinary) < self.ordinary_max || oust(&mut seats, Kind::Ordinary, false);
        let kind = if is_free { Kind::Ordinary } else { Kind::Kept };
        if kind == Kind::Kept && count(&seats, kind) >= self.kept_max {
            // They have one short answer each; who has not taken it by now makes room all the same.
            oust(&mut seats, kind, true);
        }
        let doing = Mutex::new(Doing { answers: 0, blocked: false, since: Instant::now() });
        let seat = Arc::new(Seat { kind, doing, gone: CancellationToken::new() });
        seats.push(seat.clone());
        Place { seat, places: self.clone() }
    }

    /// Closes the connection that is idle longest, whatever its place.
    pub(super) fn make_room(&self) {
        let mut seats = self.seats();
        _ = oust(&mut seats, Kind::Ordinary, false) || oust(&mut seats, Kind::Kept, false);
    }
}

/// Takes its place from who is idle longest; `busy_too`: else from the oldest. Says whether there was one.
fn oust(seats: &mut Vec<Arc<Seat>>, kind: Kind, busy_too: bool) -> bool {
    let of_kind = || seats.iter().enumerate().filter(|(_, seat)| seat.kind == kind);
    let idle = of_kind().filter_map(|(at, seat)| Some((seat.idle_since()?, at))).min().map(|(_, at)| at);
    let oldest = || of_kind().map(|(at, _)| at).next();
    let Some(at) = idle.or_else(|| if busy_too { oldest() } else { None }) else { return false };
    seats.remove(at).gone.cancel();
    true
}

impl Place {
    pub(super) fn kind(&self) -> Kind {
        self.seat.kind
    }

    /// Returns when the place is another's.
    pub(super) async fn gone(&self) {
        self.seat.gone.cancelled().await;
    }

    pub(super) fn answering(&self) -> Answering {
        self.seat.change(|doing| doing.answers += 1);
        Answering(self.seat.clone())
    }

    /// For the stream below: the client takes nothing, or takes again.
    pub(super) fn blocks(&self) -> impl Fn(bool) + Send + use<> {
        let seat = self.seat.clone();
        move |blocked| seat.change(|doing| doing.blocked = blocked)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.change(|doing| doing.answers = doing.answers.saturating_sub(1));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.seats().retain(|seat| !Arc::ptr_eq(seat, &self.seat));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn is_gone(place: &Place) -> bool {
        place.seat.gone.is_cancelled()
    }

    async fn a_second_passes() {
        tokio::time::advance(Duration::from_secs(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_idle_longest_gives_way_and_a_busy_one_never() {
        let places = Places::new(3, 1);
        let (first, second, third) = (places.take(), places.take(), places.take());
        let answer = first.answering();
        a_second_passes().await;
        // Idle since now, and younger than the third.
        drop(second.answering());
        let fourth = places.take();
        assert_eq!([&first, &second, &third].map(is_gone), [false, false, true]);
        assert_eq!(fourth.kind(), Kind::Ordinary);
        a_second_passes().await;
        drop(answer);
        let (_fifth, _sixth) = (places.take(), places.take());
        assert_eq!([&first, &second].map(is_gone), [false, true]);
        assert!(is_gone(&fourth), "it came before the first had its answer");
    }

    #[tokio::test(start_paused = true)]
    async fn where_all_are_busy_a_kept_place_is_given_and_the_oldest_of_these_gives_way() {
        let places = Places::new(2, 1);
        let (one, two) = (places.take(), places.take());
        one.blocks()(true);
        two.blocks()(true);
        let kept = places.take();
        let _busy = kept.answering();
        let next = places.take();
        assert_eq!((kept.kind(), next.kind()), (Kind::Kept, Kind::Kept));
        assert_eq!([&one, &two, &kept, &next].map(is_gone), [false, false, true, false]);
        two.blocks()(false);
        assert_eq!((places.take().kind(), is_gone(&two)), (Kind::Ordinary, true));
        places.make_room();
        assert!(is_gone(&next) && !is_gone(&one), "the only idle one");
    }

    #[test]
    fn a_place_that_is_left_is_free() {
        let places = Places::new(1, 1);
        for _ in 0..3 {
            assert_eq!(places.take().kind(), Kind::Ordinary);
        }
        assert!(places.seats().is_empty());
    }
}
