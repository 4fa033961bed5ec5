//! One suite for every store, and what is special about each of them.
#![expect(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "store/blob.rs"]
mod blob;
#[path = "store/contract.rs"]
mod contract;
#[path = "store/file.rs"]
mod file;
#[path = "store/namespace.rs"]
mod namespace;
mod support;
#[path = "store/world.rs"]
mod world;

/// Each sentence of the contract, for each store.
macro_rules! contract {
    ($($sentence:ident)*) => {
        mod file_store {
            $(#[tokio::test]
            async fn $sentence() {
                crate::contract::$sentence(&crate::world::World::file()).await;
            })*
        }
        mod azure_blob_store {
            $(#[tokio::test]
            async fn $sentence() {
                crate::contract::$sentence(&crate::world::World::blob().await).await;
            })*
        }
    };
}

contract! {
    an_absent_key_reads_as_nothing
    create_refuses_an_existing_document
    a_swap_needs_the_current_version
    anything_overwrites_whatever_is_there
    fm_24_of_racing_writers_exactly_one_wins_each_round
    of_racing_creators_exactly_one_wins
    an_append_needs_the_exact_position
    concurrent_appenders_lose_and_double_nothing
    reserving_room_changes_nothing_that_can_be_read
    reading_starts_at_the_offset
    a_cut_needs_the_exact_length
    a_list_has_the_prefix_and_byte_order
    delete_is_idempotent
    every_legal_character_makes_a_key
    a_document_of_a_megabyte_survives
    age_grows
    the_probe_proves_and_leaves_nothing
    fm_56_the_proof_of_versions_is_repeatable_and_disturbs_nobody
}
