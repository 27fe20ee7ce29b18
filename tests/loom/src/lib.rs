//! Model checks of the hand-written atomics: every interleaving, and every reordering that their orderings allow.
//!
//! The modules are taken from the product by path; they import nothing from its crate. `models` is compiled twice: over
//! the product's files, where every model must hold, and over copies whose orderings `build.rs` has made Relaxed, where
//! those that depend on an ordering must fail. What is modelled, by file:
//!
//! | file | claim |
//! |---|---|
//! | `queue/extent.rs` | what a reader sees below the published end is in place; a sealed end is final and whole |
//! | `queue/progress.rs` | nothing is durable, counted or marked that no file has, before a failed sync and after it |
//! | `queue/quota.rs` | no more is taken than there is; who waits for bytes finds them once woken |
//! | `sys/handshake.rs` | no request and no verdict is missed by a thread that goes to sleep; nothing is left after a last word |
//! | `sys/lost.rs` | whoever reads zeros of a page that was sound hears of it |
//! | `sys/ranges.rs` | who holds a range finds it; nothing is found that lies in none |
//! | `pipeline/drain.rs` | who sees that the end has begun sees all that came before it |
//!
//! Not here: counters and flags through which nothing is published, and what is no protocol between threads of ours, the
//! handler of a signal on the thread that reads (`sys/sigbus.rs`) and the counts of `Arc` (`queue/segment.rs`).

#![cfg(test)]
#![allow(dead_code, reason = "the models use a part of each module")]
#![allow(clippy::duplicate_mod, reason = "the models run twice: over the product and over planted bugs")]

#[cfg(not(loom))]
compile_error!("the atomics are not loom's: run cargo in tests/loom, where .cargo/config.toml says so");

mod planted;
mod product;

/// A model that holds, and fails once its orderings are Relaxed.
macro_rules! needs_its_orderings {
    ($($model:ident),*) => {$(
        mod $model {
            #[test]
            fn holds() {
                crate::product::models::$model();
            }

            #[test]
            #[should_panic]
            fn fails_with_planted_orderings() {
                crate::planted::models::$model();
            }
        }
    )*};
}

needs_its_orderings!(
    whatever_is_published_is_in_place,
    a_sealed_end_is_final_and_complete,
    nothing_is_durable_that_was_not_synced,
    a_footer_speaks_of_entries_that_are_durable,
    no_segment_is_too_old_with_a_block_that_is_not,
    what_was_moved_is_durable_in_its_new_file_only,
    who_is_told_to_move_blocks_sees_which,
    who_sees_a_durable_sequence_sees_its_sync,
    no_request_is_missed,
    no_verdict_is_missed_by_a_producer_that_parks,
    nothing_is_left_after_the_last_word,
    who_holds_a_range_finds_it,
    no_zeros_are_sent_for_a_page_that_was_sound,
    the_end_comes_after_all_that_was_before_it
);

#[test]
fn a_recovered_segment_is_sealed_from_the_start() {
    product::models::a_recovered_segment_is_sealed_from_the_start();
}

#[test]
fn no_more_is_taken_than_there_is() {
    product::models::no_more_is_taken_than_there_is();
}

#[test]
fn who_waits_for_bytes_finds_them_once_woken() {
    product::models::who_waits_for_bytes_finds_them_once_woken();
}

#[test]
fn nothing_between_two_ranges_is_found() {
    product::models::nothing_between_two_ranges_is_found();
}

#[test]
fn a_producer_is_woken_at_most_once_a_park() {
    product::models::a_producer_is_woken_at_most_once_a_park();
}
