//! The machine's table of processes: whose child is whose, and what an earlier laboratory left.

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use std::{collections::BTreeSet, fs, path::Path, process::Command};

/// The programs a laboratory starts. What else mentions its directory, an editor or a `tail`, is
/// left alone.
const PROGRAMS: &[&str] = &[
    "postgres",
    "initdb",
    "pg_basebackup",
    "pg_rewind",
    "pg_controldata",
    "redis-server",
    "pdns_server",
    "godwit",
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    /// The program and its arguments; one text where the system does not keep them apart.
    pub command: Vec<String>,
}

/// Every process that can be seen and is not a zombie.
pub fn table() -> Vec<Process> {
    match fs::read_dir("/proc") {
        Ok(entries) if Path::new("/proc/self/stat").exists() => entries
            .flatten()
            .filter_map(|entry| from_proc(entry.file_name().to_str()?.parse().ok()?))
            .collect(),
        _ => from_ps(),
    }
}

/// proc(5): `pid (program) state parent ...`, where the program's name may hold anything.
fn from_proc(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut after_name = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = after_name.next()?;
    let parent = after_name.next()?.parse().ok()?;
    if state == "Z" {
        return None;
    }
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command);
    let command = command.split_terminator('\0').map(str::to_owned).collect();
    Some(Process { pid, parent, command })
}

/// Elsewhere than on Linux.
fn from_ps() -> Vec<Process> {
    let listed = Command::new("ps").args(["-A", "-ww", "-o", "pid=,ppid=,stat=,args="]).output();
    let Ok(listed) = listed else { return Vec::new() };
    let line = |line: &str| {
        let (pid, rest) = line.trim_start().split_once(' ')?;
        let (parent, rest) = rest.trim_start().split_once(' ')?;
        let (state, command) = rest.trim_start().split_once(' ')?;
        if state.starts_with('Z') {
            return None;
        }
        let command = vec![command.trim().to_owned()];
        Some(Process { pid: pid.parse().ok()?, parent: parent.parse().ok()?, command })
    };
    String::from_utf8_lossy(&listed.stdout).lines().filter_map(line).collect()
}

/// The children of a process, their children, and so on. Postgres' children each have a process
/// group of their own, so that no group reaches them.
pub fn descendants(of: i32) -> Vec<i32> {
    let table = table();
    let mut found = vec![];
    let mut look_below = vec![of];
    while let Some(parent) = look_below.pop() {
        for child in table.iter().filter(|process| process.parent == parent) {
            found.push(child.pid);
            look_below.push(child.pid);
        }
    }
    found
}

/// What is running of the laboratory that keeps itself in one of `dirs`.
pub fn leftovers(dirs: &[&Path]) -> Vec<Process> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    table().into_iter().filter(|process| process.pid != own && belongs(process, dirs)).collect()
}

fn belongs(process: &Process, dirs: &[&Path]) -> bool {
    let Some(first) = process.command.first() else { return false };
    let program = first.split_ascii_whitespace().next().unwrap_or_default();
    let name = Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // Of `godwit`'s own commands, those that a laboratory runs.
    let ours = name != "godwit"
        || ["serve", "migrate", "tenant", "key"].iter().any(|command| {
            process.command.get(1).is_some_and(|arg| arg == command)
                || first.split_ascii_whitespace().nth(1) == Some(command)
        });
    let mentioned = |dir: &&Path| {
        dir.to_str().is_some_and(|dir| process.command.iter().any(|text| mentions(text, dir)))
    };
    PROGRAMS.contains(&name) && ours && dirs.iter().any(mentioned)
}

/// Whether `text` is, or holds as a word, a path at or below `dir`.
fn mentions(text: &str, dir: &str) -> bool {
    text.match_indices(dir).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + dir.len()..].chars().next();
        before.is_none_or(|c| matches!(c, ' ' | '='))
            && after.is_none_or(|c| matches!(c, ' ' | '/'))
    })
}

/// Asks each to stop, in the way it stops soonest without harm.
pub fn ask_to_stop(process: &Process) {
    let postgres = process.command.first().is_some_and(|first| {
        let program = first.split_ascii_whitespace().next().unwrap_or_default();
        program.ends_with("postgres")
    });
    // A stopped process does not hear anything else.
    signal(process.pid, Signal::SIGCONT);
    signal(process.pid, if postgres { Signal::SIGINT } else { Signal::SIGTERM });
}

/// Ends a process, its group and what is below it, now.
pub fn destroy(pid: i32) {
    let below = descendants(pid);
    // Fails when it leads no group, or is gone.
    let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    for pid in std::iter::once(pid).chain(below) {
        signal(pid, Signal::SIGKILL);
    }
}

/// Stops (SIGSTOP) a process and all below it. Parents first: a stopped one has no new children.
pub fn freeze(pid: i32) {
    let mut frozen = BTreeSet::new();
    let mut next = vec![pid];
    while !next.is_empty() {
        for pid in next {
            signal(pid, Signal::SIGSTOP);
            frozen.insert(pid);
        }
        next = descendants(pid).into_iter().filter(|pid| !frozen.contains(pid)).collect();
    }
}

/// Undoes [`freeze`].
pub fn thaw(pid: i32) {
    for pid in descendants(pid).into_iter().chain([pid]) {
        signal(pid, Signal::SIGCONT);
    }
}

pub fn signal(pid: i32, signal: Signal) {
    // Fails when it is gone already, which is not worth a word.
    let _ = kill(Pid::from_raw(pid), signal);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(command: &[&str]) -> Process {
        Process { pid: 1, parent: 0, command: command.iter().map(|&s| s.to_owned()).collect() }
    }

    #[test]
    fn its_own_programs_on_its_own_directory_belong_to_a_laboratory_and_nothing_else_does() {
        let dirs = [Path::new("/x/.godwit"), Path::new("/var/tmp/godwit-lab-1")];
        for ours in [
            &["/usr/bin/postgres", "-D", "/x/.godwit/data/us/postgres"][..],
            &["postgres -D /x/.godwit/data/us/postgres -k"],
            &["redis-server", "/var/tmp/godwit-lab-1/us/redis/redis.conf"],
            &["/usr/sbin/pdns_server", "--config-dir=/x/.godwit/dns"],
            &["/t/godwit", "serve", "--config=/x/.godwit/regions/us/godwit.toml"],
            &["/t/godwit serve --config /x/.godwit/regions/us/godwit.toml"],
        ] {
            assert!(belongs(&process(ours), &dirs), "{ours:?}");
        }
        for other in [
            &["/usr/bin/postgres", "-D", "/y/x/.godwit/data/us/postgres"][..],
            &["postgres", "-D", "/x/.godwit-2/data"],
            &["tail", "-f", "/x/.godwit/logs/us-api.log"],
            &["/t/godwit", "lab", "up", "--dir", "/x/.godwit"],
            &["/t/godwit", "import", "--lab", "/x/.godwit"],
            &["postgres: walwriter"],
            &[],
        ] {
            assert!(!belongs(&process(other), &dirs), "{other:?}");
        }
    }

    #[test]
    fn this_test_is_in_the_table() {
        let own = i32::try_from(std::process::id()).unwrap();
        let found = table().into_iter().find(|process| process.pid == own).unwrap();
        assert!(found.parent > 0 && !found.command.is_empty(), "{found:?}");
    }
}
