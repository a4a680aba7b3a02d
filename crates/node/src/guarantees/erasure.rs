//! What holds of erasing a data subject.

use super::{
    About::{Atomicity, Delivery, Durability, Integrity, Visibility},
    Guarantee,
    Proof::Conformance,
    Surface::{Cli, Http, Library},
    row, test,
};

const FAULTS: &str = "crates/data/tests/sqlite/faults.rs";
const ERASURE: &str = "crates/data/tests/sqlite/erasure.rs";
const ERASING: &str = "crates/node/tests/http/erasure.rs";
const LETTING_GO: &str = "crates/data/src/subscription/tests/erasing.rs";
const TYPED: &str = "crates/cli/tests/cli/erasure.rs";

pub(super) const ROWS: &[Guarantee] = &[
    row(
        Durability,
        "erase a data subject",
        Library,
        "neither the data nor its key stands in any file afterwards, nor do copies that rooms kept; no crash, and no older copy of store or keys alone, brings them back",
        &[
            test(ERASURE, "neither_data_nor_destroyed_keys_stand_in_any_file"),
            test(ERASURE, "copies_that_rooms_and_applications_kept_are_wiped_out_of_the_files_with_the_erasure"),
            test(ERASURE, "a_crash_between_ledger_and_key_is_finished_by_opening"),
            test(ERASURE, "keys_that_know_more_than_the_ledger_teach_it"),
            test(ERASURE, "an_older_backup_beside_the_surviving_keys_does_not_bring_data_back"),
            test(ERASURE, "a_late_repetition_or_a_refusal_does_not_bring_an_erased_subject_back"),
        ],
    ),
    row(
        Durability,
        "restore with the erasure ledger",
        Cli,
        "a backup and keys from before an erasure come back without what was erased",
        &[
            test(
                "crates/cli/tests/cli/erasure.rs",
                "a_backup_from_before_an_erasure_is_restored_without_what_was_erased",
            ),
            test(ERASURE, "with_the_ledger_older_copies_of_both_do_not_bring_data_back"),
            test(ERASURE, "a_restored_backup_forgets_what_consumers_had_said_of_who_was_erased_since"),
        ],
    ),
    row(
        Atomicity,
        "erase a data subject",
        Library,
        "whichever operation of the disk fails, it is told as done only when it is; a repeat finishes it and destroys nothing twice",
        &[
            test(FAULTS, "an_erasure_is_told_as_done_only_when_it_is_and_a_repeat_finishes_whatever_fails"),
            test(ERASURE, "an_erasure_whose_caller_went_away_comes_to_its_end_and_is_incomplete_until_then"),
            Conformance("erasing_twice_and_erasing_nobody_is_harmless"),
        ],
    ),
    row(
        Atomicity,
        "POST /v1/subjects/{subject}/erase",
        Http,
        "copies that could not be forgotten are told with their room, and the subject is called erased only once they are",
        &[test(ERASING, "copies_that_could_not_be_forgotten_are_told_and_a_repeat_finishes")],
    ),
    row(
        Visibility,
        "erase a data subject",
        Library,
        "once it is answered no read, reader or subscription hands out the data, although it had read it before",
        &[
            test(LETTING_GO, "a_reader_hands_out_nothing_that_was_erased_although_it_had_read_it"),
            test(LETTING_GO, "a_subscription_hands_out_nothing_that_was_erased_although_it_had_read_ahead"),
            test(LETTING_GO, "consumers_that_pull_while_a_subject_is_erased_see_nothing_of_it_afterwards"),
            test(
                "crates/consistency/src/event_sourcing/tests/erasure.rs",
                "an_erasure_takes_events_out_of_states_in_memory_and_in_the_log",
            ),
        ],
    ),
    row(
        Visibility,
        "POST /v1/subjects/{subject}/erase",
        Http,
        "once it is answered nothing of the data is sent, not even to a slow reader for whom it had been read",
        &[
            test(ERASING, "a_slow_reader_is_sent_nothing_after_it_was_erased_although_it_was_read_before"),
            test(ERASING, "an_erased_subject_is_unreadable_everywhere_and_the_chain_still_verifies"),
        ],
    ),
    row(
        Integrity,
        "read",
        Library,
        "an event whose key is missing is an error and never passes for erased",
        &[
            test(ERASURE, "keys_older_than_an_event_are_an_error_until_its_subject_is_erased"),
            test(ERASURE, "rot_in_keys_and_ledger_is_named_and_nothing_wrong_is_served"),
        ],
    ),
    row(
        Durability,
        "backup",
        Library,
        "a backup holds no keys, and is not opened without them",
        &[
            test(ERASURE, "a_backup_holds_no_keys_and_is_not_opened_without_them"),
            test(ERASURE, "lost_keys_are_given_up_only_on_demand"),
        ],
    ),
    row(
        Atomicity,
        "erase a data subject",
        Library,
        "of events appended beside it, those are lost that came before it and no others; rooms are asked until they forgot their copies",
        &[
            Conformance("appends_beside_an_erasure_are_lost_only_if_they_came_before"),
            Conformance("rooms_are_asked_to_forget_until_they_did"),
            Conformance("appending_again_begins_a_new_generation"),
        ],
    ),
    row(
        Delivery,
        "append, repeated",
        Library,
        "a repeat of an event is known before and after its data subject was erased",
        &[
            Conformance("a_repeat_is_known_before_and_after_an_erasure"),
            Conformance("a_stub_of_sealed_data_still_knows_its_repeats"),
        ],
    ),
    row(
        Integrity,
        "read",
        Cli,
        "an event whose key is missing is told with what to do, and others are read",
        &[test(TYPED, "a_key_that_is_missing_is_told_and_never_passes_for_erased")],
    ),
    row(
        Integrity,
        "serve",
        Cli,
        "a node whose keys are missing, or are those of another store, does not start and says what to do",
        &[
            test(TYPED, "a_node_without_its_keys_does_not_start_and_says_what_to_do"),
            test(ERASURE, "a_file_of_keys_that_is_not_this_stores_is_refused"),
        ],
    ),
    row(
        Integrity,
        "POST /v1/subjects/{subject}/erase",
        Http,
        "the ledger names nobody, and comes in the form that a restore takes",
        &[
            test(ERASING, "erasing_again_answers_the_same_and_the_ledger_names_nobody"),
            test(ERASING, "the_ledger_is_paged_and_exported_in_the_form_that_a_restore_takes"),
        ],
    ),
];
