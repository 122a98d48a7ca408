//! The commands: a file each, a line each in [`Command`].
//!
//! A command prints what it found or did to standard output, and why it could not to standard
//! error. Exit code 0 done, 1 failed, 2 wrong usage, 3 refused by a safety rule. Nothing here
//! decides anything: it asks the room whose work it is.

mod client;
mod doctor;
mod drill;
mod failover;
mod health;
mod import;
mod key;
mod lab;
mod migrate;
mod openapi;
mod output;
mod region;
mod serve;
mod status;
mod target;
mod tenant;
mod user;

pub use output::Output;
use output::table;
pub use target::{About, Target};

use std::{fmt, future::Future, io::Write as _, process::ExitCode};

/// An application backend that lives in several regions at once.
#[derive(Debug, clap::Parser)]
#[command(name = "godwit", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Doctor(doctor::Doctor),
    Drill(drill::Drill),
    Health(health::Health),
    Import(import::Import),
    Key(key::Key),
    Lab(lab::Lab),
    Migrate(migrate::Migrate),
    Openapi(openapi::OpenApi),
    Promote(failover::Promote),
    Region(region::RegionCommand),
    Rejoin(failover::Rejoin),
    Serve(serve::Serve),
    Status(status::Status),
    Switchover(failover::Switchover),
    Tenant(tenant::Tenant),
    User(user::User),
}

impl Cli {
    /// Runs the command to its end.
    #[must_use]
    pub fn run(self) -> ExitCode {
        // Refused only when one is installed already, which would be the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let done = match self.command {
            Command::Doctor(doctor) => doctor.run(),
            Command::Drill(drill) => drill.run(),
            Command::Health(health) => health.run(),
            Command::Import(import) => import.run(),
            Command::Key(key) => key.run(),
            Command::Lab(lab) => lab.run(),
            Command::Migrate(migrate) => migrate.run(),
            Command::Openapi(openapi) => openapi.run(),
            Command::Promote(promote) => promote.run(),
            Command::Region(region) => region.run(),
            Command::Rejoin(rejoin) => rejoin.run(),
            Command::Serve(serve) => serve.run(),
            Command::Status(status) => status.run(),
            Command::Switchover(switchover) => switchover.run(),
            Command::Tenant(tenant) => tenant.run(),
            Command::User(user) => user.run(),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                // Whoever reads along may have gone: no reason to panic.
                let _ = writeln!(std::io::stderr(), "godwit: {error:#}");
                ExitCode::from(code(&error))
            }
        }
    }
}

/// A safety rule said no: exit code 3.
#[derive(Debug)]
pub struct Refused(pub String);

/// The arguments make no sense together: exit code 2.
#[derive(Debug)]
pub struct Misused(pub String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Display for Misused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for Refused {}
impl std::error::Error for Misused {}

fn code(error: &anyhow::Error) -> u8 {
    if error.is::<Refused>() {
        3
    } else if error.is::<Misused>() {
        2
    } else {
        1
    }
}

/// Runs a command's future on a runtime of its own, made for short work.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = runtime.block_on(work);
    // Without waiting for a thread that may be reading standard input.
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn a_refusal_and_a_misuse_have_their_own_exit_codes_even_with_context_around_them() {
        let refused = anyhow::Error::new(Refused("no".into())).context("promote");
        assert_eq!(code(&refused), 3);
        assert_eq!(code(&Misused("no".into()).into()), 2);
        assert_eq!(code(&anyhow::anyhow!("no")), 1);
    }
}
