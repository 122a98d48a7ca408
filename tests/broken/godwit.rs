//! The program as `src/main.rs` has it, under another name: built with the feature `broken`, it breaks
//! the rule that GODWIT_BROKEN names.

use clap::Parser as _;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    godwit::cli::Cli::parse().run()
}
