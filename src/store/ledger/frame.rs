//! The bytes of a segment: frames of `{length u32, batch_id [16], attempt u32, ids [16 each], crc32 u32}`, little-endian; `length` counts
//! what follows it.

use crate::flow::EventId;

const HEAD_BYTES: usize = 20;
const ID_BYTES: usize = 16;
const CRC_BYTES: usize = 4;
/// A frame without ids.
pub(super) const FRAME_BYTES_MIN: u64 = (4 + HEAD_BYTES + CRC_BYTES) as u64;

/// Ids accepted together; none of them: a proof that the segment takes appends.
pub(super) struct Frame {
    pub batch_id: [u8; 16],
    pub attempt: u32,
    pub ids: Vec<EventId>,
}

impl Frame {
    pub(super) fn same(&self, other: &Self) -> bool {
        self.batch_id == other.batch_id && self.attempt == other.attempt && self.ids == other.ids
    }

    /// Bytes that it takes.
    pub(super) fn size(&self) -> u64 {
        4 + self.length() as u64
    }

    fn length(&self) -> usize {
        HEAD_BYTES + self.ids.len() * ID_BYTES + CRC_BYTES
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let length = self.length();
        let mut bytes = Vec::with_capacity(4 + length);
        bytes.extend_from_slice(&(length as u32).to_le_bytes());
        bytes.extend_from_slice(&self.batch_id);
        bytes.extend_from_slice(&self.attempt.to_le_bytes());
        self.ids.iter().for_each(|id| bytes.extend_from_slice(&id.0));
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The frame at the start of `bytes` and its size; `None` when it is torn or broken.
    fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        let size = 4 + length;
        let (body, crc) = bytes.get(..size)?.split_last_chunk::<CRC_BYTES>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (batch_id, rest) = rest.split_first_chunk::<16>()?;
        let (attempt, _) = rest.split_first_chunk::<4>()?;
        let (ids, odd) = body.get(4 + HEAD_BYTES..)?.as_chunks::<ID_BYTES>();
        odd.is_empty().then(|| {
            let ids = ids.iter().copied().map(EventId).collect();
            (Self { batch_id: *batch_id, attempt: u32::from_le_bytes(*attempt), ids }, size)
        })
    }
}

/// The whole frames of a segment and the bytes they take; what follows is torn.
pub(super) fn frames(bytes: &[u8]) -> (Vec<Frame>, usize) {
    let (mut frames, mut at) = (Vec::new(), 0);
    while let Some((frame, size)) = bytes.get(at..).and_then(Frame::decode) {
        frames.push(frame);
        at += size;
    }
    (frames, at)
}
