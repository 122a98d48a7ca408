//! What is lost, what goes on and what is said when something breaks.
//!
//! What can be broken for one process alone is broken between it and the primary ([`edge`],
//! [`wire`]) and uses the laboratory that all tests share; what breaks a region uses a laboratory
//! kept for that, by one test at a time (`harness::faulty`).

mod breaker;
mod cut;
mod drain;
pub mod edge;
mod envelope;
mod hop;
mod kill;
pub mod load;
mod positions;
mod quorum;
pub mod wire;

use crate::harness;
use godwit::vocab::{Clock as _, SystemClock};
use libtest_mimic::Trial;
use std::time::{Duration, Instant};

fn now() -> Instant {
    SystemClock.monotonic()
}

fn since(began: Instant) -> Duration {
    now().saturating_duration_since(began)
}

/// Requests that a process has under way, by its own count.
async fn in_flight(http: &reqwest::Client, ops: &str) -> reqwest::Result<usize> {
    let text = http.get(format!("{ops}/metrics")).send().await?.text().await?;
    let name = "godwit_http_requests_in_flight ";
    let count = text.lines().find_map(|line| line.strip_prefix(name));
    Ok(count.and_then(|count| count.parse().ok()).unwrap_or(0))
}

macro_rules! trials {
    ($($run:ident $module:ident::{$($name:ident),+ $(,)?})+) => {
        vec![$($(Trial::test(
            concat!("faults::", stringify!($module), "::", stringify!($name)),
            || harness::$run($module::$name()),
        )),+),+]
    };
}

pub fn trials() -> Vec<Trial> {
    trials! {
        run_alone breaker::{it_opens_is_told_and_closes_soon_after_the_link_heals}
        run quorum::{
            a_write_that_no_second_region_has_is_not_acknowledged,
            a_write_is_refused_where_commits_wait_for_nobody,
            a_revocation_that_no_second_region_has_is_not_acknowledged,
        }
        run_alone quorum::{
            what_a_replica_has_shown_the_primary_shows_too,
            what_a_replica_has_shown_before_it_was_cut_off_is_not_denied,
        }
        run envelope::{
            a_forwarded_request_is_believed_only_as_it_was_sealed,
            the_public_listener_knows_no_envelope,
            a_credential_never_leaves_the_edge,
        }
        run hop::{
            a_create_cut_at_any_byte_happens_once,
            a_long_answer_cut_midway_is_never_taken_for_whole,
            a_lost_answer_is_an_unknown_outcome_that_can_be_asked_for,
            a_late_write_that_was_sent_again_happens_once,
            a_write_that_a_replica_knows_nothing_of_is_asked_of_the_primary,
        }
        run_alone cut::{
            reads_go_on_without_the_primary_and_writes_soon_after_it_is_back,
            a_slow_link_slows_writes_and_fails_none,
        }
        run_alone kill::{
            of_an_api_process_far_from_the_primary,
            of_a_redis,
            of_a_replica,
            of_the_primarys_database,
            of_the_primarys_api_process,
            a_frozen_primary_is_told_of_truthfully,
        }
        run_alone drain::{
            a_process_told_to_end_answers_what_it_accepted,
            a_read_that_waits_when_the_end_is_told_is_still_answered_here,
            all_listeners_together_take_the_time_of_one,
            a_primary_told_to_end_takes_nothing_new_from_its_peers,
            a_process_with_nothing_under_way_ends_soon,
            a_process_that_is_told_twice_ends_at_once,
            peers_that_come_anew_are_told_of_the_end,
        }
        run positions::{a_promoted_replica_comes_to_what_it_writes}
        run_alone positions::{
            a_commit_at_the_end_of_a_page_is_reached_by_an_idle_replica,
            a_read_that_waited_sees_what_it_waited_for,
            a_replica_that_stands_still_is_not_waited_for_longer_than_the_budget,
            a_long_reader_and_a_vacuum_hold_up_no_bookmark,
        }
    }
}
