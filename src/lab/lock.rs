//! One supervisor per laboratory, and what a killed one left.

use super::{layout::Layout, processes};
use anyhow::{Context as _, bail};
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    path::Path,
    time::Duration,
};

const LEFTOVER_GRACE: Duration = Duration::from_secs(5);

/// Takes the laboratory, for as long as the lock is kept.
///
/// # Errors
/// When a supervisor has it: with its process id.
pub fn lock(layout: &Layout) -> anyhow::Result<Flock<File>> {
    let path = layout.lock();
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.with_context(|| path.display().to_string())?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            lock.set_len(0)?;
            lock.rewind()?;
            write!(&mut *lock, "{}", std::process::id())?;
            Ok(lock)
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            bail!(
                "a laboratory already runs in {} (process {pid}): `godwit lab down`, or take another --dir",
                layout.root().display()
            )
        }
        Err((_, error)) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Stops what an earlier supervisor, killed, left running. Returns how many there were.
pub async fn sweep(layout: &Layout) -> usize {
    // Data elsewhere is named by its real path.
    let data = layout.real_data().ok().flatten().unwrap_or_else(|| layout.data());
    let dirs: [&Path; 2] = [layout.root(), &data];
    let found = processes::leftovers(&dirs);
    found.iter().for_each(processes::ask_to_stop);
    let gone = async {
        while !processes::leftovers(&dirs).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(LEFTOVER_GRACE, gone).await.is_err() {
        for process in processes::leftovers(&dirs) {
            processes::destroy(process.pid);
        }
    }
    found.len()
}
