//! Godwit from outside: real processes, real Postgres and Redis, real distances.
//!
//! One laboratory is shared by every test that does not break it (`harness::shared`); who needs
//! faults or settings takes one of its own (`harness::own`). Tests run side by side, so each keeps
//! to a collection or a tenant of its own; one that measures time asks for quiet
//! (`harness::Quiet`). Whatever happens, Ctrl-C included, no laboratory outlives the run.

#![expect(dead_code, reason = "what further tests will use")]

mod client;
mod harness;
mod smoke;

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

/// Most of a test's time is distance, not work: more of them at once than there are cores.
const TESTS_AT_ONCE: usize = 4;

/// Names each test as it is called.
macro_rules! trials {
    ($($module:ident::{$($name:ident),+ $(,)?})+) => {
        vec![$($(Trial::test(
            concat!(stringify!($module), "::", stringify!($name)),
            || harness::run($module::$name()),
        )),+),+]
    };
}

fn trials() -> Vec<Trial> {
    trials! {
        smoke::{every_region_answers}
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
