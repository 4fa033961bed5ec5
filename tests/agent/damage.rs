//! A checkpoint damaged where it is kept, between two ticks and after a crash.

use crate::source::{BOTH, Order};
use crate::world::{CHECKPOINT, World};

/// Damages of a document: cut at some places, a bit flipped at some others.
fn damages(whole: &[u8]) -> Vec<Vec<u8>> {
    let step = whole.len() / 12;
    let cut = (0..whole.len()).step_by(step).map(|end| whole[..end].to_vec());
    let flipped = (0..whole.len()).step_by(step).enumerate().map(|(n, place)| {
        let mut document = whole.to_vec();
        document[place] ^= 1 << (n % 8);
        document
    });
    cut.chain(flipped).collect()
}

fn document(world: &World) -> Vec<u8> {
    world.state().store.blobs[CHECKPOINT].bytes.clone()
}

fn put(world: &World, damage: &[u8]) {
    world.state().store.set(CHECKPOINT, damage.to_vec());
}

#[track_caller]
fn is_put_aside(world: &World, damage: &[u8]) {
    let state = world.state();
    let mut aside = state.store.blobs.iter().filter(|(name, _)| name.contains(".corrupt-"));
    assert!(aside.any(|(_, blob)| blob.bytes == damage), "the damaged document is gone");
}

/// Fault: the checkpoint is cut or a bit of it flips between two ticks. Shows: it is put aside as it is, no event lost or shipped twice.
#[tokio::test(start_paused = true)]
async fn fm_27_a_damaged_document_is_put_aside_and_each_event_has_one_row() {
    for order in BOTH {
        for n in 0..24 {
            let mut world = World::new(order);
            world.add(6);
            let mut process = world.start();
            process.good().await;
            world.add(6);
            process.good().await;
            let damages = damages(&document(&world));
            let Some(damage) = damages.get(n) else { continue };
            put(&world, damage);
            world.add(3);
            process.good().await;
            is_put_aside(&world, damage);
            world.each_event_has_one_row();
            world.is_sound();
        }
    }
}

/// Fault: the process dies in the middle of a tick and the checkpoint it leaves is damaged. Shows: put aside as it is, nothing lost.
#[tokio::test(start_paused = true)]
async fn fm_27_a_damaged_document_after_a_crash_is_put_aside_and_nothing_is_lost() {
    for k in 1..24 {
        let mut world = World::new(Order::Insertion);
        world.add(6);
        world.start().good().await;
        world.add(6);
        world.crash_at(k).await;
        let damages = damages(&document(&world));
        let damage = &damages[k as usize % damages.len()];
        put(&world, damage);
        world.add(3);
        // The open intent went with the document: no wait for its owner.
        world.start().good().await;
        is_put_aside(&world, damage);
        world.nothing_is_lost();
    }
}
