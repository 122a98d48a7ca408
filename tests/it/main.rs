//! Godwit from outside: real processes, real Postgres and Redis, real distances.
//!
//! One laboratory is shared by every test that does not break it (`harness::shared`); who needs
//! faults or settings takes one of its own (`harness::own`). Tests run side by side, so each keeps
//! to a collection or a tenant of its own; those that measure time come last and run `alone`. Whatever happens, Ctrl-C included, no laboratory outlives the run.

mod agent;
mod bad_input;
mod client;
mod collector;
mod consistency;
mod contention;
mod credentials;
mod dns;
mod drill;
mod failover;
mod faults;
mod harness;
mod health;
mod items;
mod laboratory;
mod limits;
mod listener;
mod lists;
mod observed;
mod outages;
mod pages;
#[cfg(feature = "platforms")]
mod platforms;
mod raw;
mod releases;
mod sessions;
mod signin;
mod tenancy;
mod users;

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

/// Most of a test's time is distance, not work: more of them at once than there are cores.
const TESTS_AT_ONCE: usize = 4;

/// Names each test as it is called.
macro_rules! trials {
    ($($run:ident $module:ident::{$($name:ident),+ $(,)?})+) => {
        vec![$($(Trial::test(
            concat!(stringify!($module), "::", stringify!($name)),
            || harness::$run($module::$name()),
        )),+),+]
    };
}

/// The longest first, so that the short ones fill the gaps.
fn trials() -> Vec<Trial> {
    let mut trials = trials! {
        run contention::{sixty_four_clients_lose_no_update}
        run sessions::{
            a_session_reads_its_writes_in_every_region_and_never_goes_back,
            without_the_bookmark_reads_are_stale,
        }
        run drill::{
            a_primary_that_is_never_fenced_is_found_out,
            a_bookmark_without_its_epoch_is_found_out,
            a_bookmark_from_before_the_commit_is_found_out,
            what_is_lost_is_listed_and_told,
            a_drill_that_moves_nothing_is_clean_and_leaves_its_report,
        }
        run consistency::{a_delayed_replica_answers_as_it_is_asked}
        run limits::{a_credential_has_one_bucket_in_a_region}
        run bad_input::{
            every_bad_request_is_told_what_is_wrong,
            what_is_no_request_at_all_is_answered_too,
            a_slow_body_is_not_waited_for,
            floods_of_huge_requests_leave_no_trace,
        }
        run tenancy::{
            another_tenants_things_cannot_be_seen_or_changed,
            every_route_wants_a_credential_with_its_scope,
            the_internal_listener_serves_no_client,
        }
        run credentials::{
            a_new_key_works_at_once_everywhere_and_an_ended_one_nowhere,
            a_key_past_its_time_is_refused,
            a_key_gives_no_more_than_it_has,
            an_operators_writes_are_in_the_journal,
        }
        run items::{
            an_item_lives_through_all_its_changes_far_from_the_primary,
            a_head_is_answered_as_its_get_without_the_body,
            a_merge_patch_changes_what_it_names,
            numbers_and_text_come_back_as_they_were,
            a_batch_is_all_or_nothing,
            a_refused_batch_shows_no_version_that_it_made,
            a_repeated_write_has_one_effect,
            twins_at_the_same_time_have_one_effect,
        }
        run lists::{
            pages_hold_every_item_once_while_others_come,
            a_page_of_large_items_ends_early_and_none_is_left_out,
            lists_find_and_order_what_they_are_asked_for,
            collections_come_by_name_in_pages_with_their_counts,
        }
        run laboratory::{
            a_cut_replica_streams_again_at_once_when_the_link_heals,
            a_fault_reaches_every_process_of_a_region_and_no_other,
            an_interrupted_start_leaves_neither_process_nor_half_a_database,
            what_a_killed_supervisor_left_is_found_and_stopped,
            a_directory_of_someone_else_is_neither_taken_nor_purged,
        }
        run agent::{
            a_replaced_primary_comes_back_as_one_and_follows_once_it_is_told_to,
            a_rewind_that_is_broken_off_ends_well_when_it_is_ordered_again,
        }
        run observed::{
            one_write_over_two_regions_is_one_trace,
            every_metric_of_the_contract_is_there,
            each_request_is_one_line,
            a_refusal_is_told_in_its_line,
            a_browser_gets_its_bookmark_as_a_cookie,
        }
        run_alone sessions::{a_local_read_takes_less_than_two_milliseconds}
        run_alone dns::{every_region_is_lost_and_its_users_are_served_elsewhere}
    };
    trials.extend(of_people());
    trials.extend(faults::trials());
    trials.extend(failover::trials());
    #[cfg(feature = "platforms")]
    trials.extend(platforms::trials());
    trials
}

fn of_people() -> Vec<Trial> {
    trials! {
        run users::{
            who_registers_far_from_the_primary_is_seen_everywhere_at_once,
            a_repeated_registration_makes_one_user,
            a_user_lives_through_all_changes_far_from_the_primary,
            a_tenant_keeps_an_administrator,
            what_cannot_be_a_user_is_refused_by_the_name_of_what_is_wrong,
            users_are_listed_in_pages_while_others_come_and_go,
            of_a_password_nothing_is_kept_but_its_argon2id_hash,
            reads_go_on_while_passwords_are_hashed,
            an_operator_makes_and_keeps_users_by_command,
            the_laboratory_has_an_administrator,
        }
        run signin::{
            who_signs_in_anywhere_is_known_everywhere_at_once,
            what_is_wrong_with_a_sign_in_is_told_to_nobody,
            a_session_is_ended_everywhere_by_whoever_may_end_it,
            a_password_a_suspension_and_a_deletion_end_what_was_begun_before,
            a_new_role_is_that_of_the_sessions_too,
            a_role_that_changes_while_somebody_signs_in_holds_for_them_too,
            what_is_no_session_of_ours_is_refused_and_a_key_is_nobodys_account,
            a_browser_is_signed_in_by_its_cookie_on_pages_of_this_site_alone,
            nothing_of_a_password_or_a_token_is_in_a_log,
            guesses_are_bounded_in_all_regions_together_and_who_is_right_gets_in,
            what_one_person_was_answered_is_not_anothers_to_repeat,
        }
        run pages::{
            a_person_lives_on_the_pages_of_every_region,
            a_form_is_done_once_and_only_for_whom_it_was_shown_to,
            a_browser_keeps_three_accounts,
            what_is_no_form_of_ours_is_refused_by_a_page,
        }
        run health::{
            every_fault_and_every_two_are_told_as_the_contract_says,
        }
        run releases::{
            a_version_goes_on_serving_while_the_schema_of_the_next_comes,
            a_version_waits_for_its_schema_and_serves_once_it_has_come,
            a_process_that_starts_without_its_database_waits_for_it,
            a_process_that_has_just_begun_refuses_nobody,
            a_process_that_is_about_to_end_is_started_anew,
            a_machine_without_certificate_authorities_is_enough_for_plain_http,
        }
        run outages::{
            a_session_outlives_its_region_and_its_redis,
            without_a_primary_people_sign_in_and_out_and_it_is_recorded_later,
            what_no_primary_has_recorded_outlives_the_region_that_did_it,
            a_region_that_was_cut_off_ends_what_was_ended_meanwhile,
            a_page_offers_to_sign_in_again_where_nobody_can_tell,
            a_full_redis_keeps_nobody_from_signing_in_or_out,
        }
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(TESTS_AT_ONCE);
    harness::begin();
    let conclusion = libtest_mimic::run(&arguments, trials());
    if arguments.list {
        return ExitCode::SUCCESS;
    }
    let failed = conclusion.has_failed();
    // Told as one more test, because it is one: the shared laboratory's log must be clean.
    let end = Trial::test("harness::the_shared_laboratory_ends_well", move || harness::end(failed));
    let only = Arguments { filter: None, skip: Vec::new(), ..arguments };
    let ended = libtest_mimic::run(&only, vec![end]);
    if failed || ended.has_failed() { ExitCode::from(101) } else { ExitCode::SUCCESS }
}
