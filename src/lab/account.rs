//! Who Postgres runs as, and where its data can then be.

use super::layout::{Layout, make_dir};
use anyhow::{Context as _, bail};
use nix::unistd::{Gid, Uid, User};
use sha2::{Digest as _, Sha256};
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown, symlink},
    path::{Path, PathBuf},
};
use tokio::process::Command;

/// The unprivileged user of a laboratory that root runs: Postgres refuses to be root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    uid: Uid,
    gid: Gid,
}

impl Account {
    /// `None` when this is not root: then Postgres runs as who we are.
    ///
    /// # Errors
    /// When root has no unprivileged user to offer.
    pub fn choose() -> anyhow::Result<Option<Self>> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        for name in ["postgres", "nobody"] {
            if let Some(user) = User::from_name(name)? {
                return Ok(Some(Self { uid: user.uid, gid: user.gid }));
            }
        }
        bail!(
            "Postgres does not run as root, and there is no user `postgres` or `nobody` to run it"
        )
    }

    /// Lets `command` run as this user.
    pub fn apply(account: Option<Self>, command: &mut Command) {
        if let Some(Self { uid, gid }) = account {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
    }

    /// Gives the file to this user.
    pub fn give(account: Option<Self>, path: &Path) -> io::Result<()> {
        match account {
            Some(Self { uid, gid }) => chown(path, Some(uid.as_raw()), Some(gid.as_raw())),
            None => Ok(()),
        }
    }

    /// Whether it can reach what is in `dir`, by the permission bits of it and all above it.
    fn reaches(self, dir: &Path) -> bool {
        dir.ancestors().all(|dir| {
            fs::metadata(dir).is_ok_and(|found| {
                let bit = if found.uid() == self.uid.as_raw() {
                    0o100
                } else if found.gid() == self.gid.as_raw() {
                    0o010
                } else {
                    0o001
                };
                found.mode() & bit != 0
            })
        })
    }
}

/// Makes the laboratory's data directory, below itself or where `account` can reach it, and
/// returns its real path.
///
/// # Errors
/// When there is no such place.
pub fn place_data(layout: &Layout, account: Option<Account>) -> anyhow::Result<PathBuf> {
    let data = layout.data();
    let reached = |dir: &Path| account.is_none_or(|account| account.reaches(dir));
    if let Ok(kept) = fs::canonicalize(&data) {
        if !reached(&kept) {
            bail!("Postgres' user cannot reach {}: `godwit lab down --purge`", kept.display());
        }
        return Ok(kept);
    }
    if reached(layout.root()) {
        make_dir(&data, 0o711)?;
        return Ok(fs::canonicalize(&data)?);
    }
    let Some(parent) = ["/var/tmp", "/tmp"].into_iter().map(Path::new).find(|dir| reached(dir))
    else {
        bail!("Postgres' user can reach neither {}, /var/tmp nor /tmp", layout.root().display());
    };
    let digest = Sha256::digest(layout.root().as_os_str().as_encoded_bytes());
    let elsewhere = parent.join(format!("godwit-lab-{}", hex::encode(&digest[..8])));
    // A link whose target is gone: someone cleaned up there.
    let _ = fs::remove_file(&data);
    match fs::DirBuilder::new().mode(0o711).create(&elsewhere) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(&elsewhere)?;
            // Anybody may write there: take nothing that is not ours.
            if !found.is_dir() || found.uid() != Uid::effective().as_raw() {
                bail!("{} belongs to someone else", elsewhere.display());
            }
        }
        made => made.with_context(|| elsewhere.display().to_string())?,
    }
    symlink(&elsewhere, &data)?;
    Ok(fs::canonicalize(elsewhere)?)
}

/// Removes all that a laboratory kept, and its directory unless there is something else in it.
///
/// # Errors
/// When something cannot be removed.
pub fn purge(layout: &Layout) -> io::Result<()> {
    let absent_is_well = |done: io::Result<()>| match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    if let Ok(kept) = fs::canonicalize(layout.data()) {
        absent_is_well(fs::remove_dir_all(kept))?;
    }
    for path in layout.all() {
        let directory = fs::symlink_metadata(&path).is_ok_and(|facts| facts.is_dir());
        let removed = if directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        absent_is_well(removed)?;
    }
    match fs::remove_dir(layout.root()) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        done => absent_is_well(done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_closed_directory_above_keeps_another_user_out() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("inside");
        fs::create_dir(&inside).unwrap();
        let stranger = Account { uid: Uid::from_raw(54_321), gid: Gid::from_raw(54_321) };
        for (mode, reached) in [(0o700, false), (0o711, true), (0o755, true), (0o770, false)] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(stranger.reaches(&inside), reached, "{mode:o}");
        }
    }

    #[test]
    fn data_stays_in_the_laboratory_when_it_can_and_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("lab");
        make_dir(&root, 0o700).unwrap();
        let layout = Layout::new(&root).unwrap();
        assert_eq!(place_data(&layout, None).unwrap(), layout.data());
        // Its directory is closed to a stranger, so that it is kept elsewhere.
        fs::remove_dir(layout.data()).unwrap();
        let stranger = Account { uid: Uid::from_raw(54_321), gid: Gid::from_raw(54_321) };
        let kept = place_data(&layout, Some(stranger)).unwrap();
        assert!(!kept.starts_with(&root) && fs::canonicalize(layout.data()).unwrap() == kept);
        assert_eq!(place_data(&layout, Some(stranger)).unwrap(), kept);
        purge(&layout).unwrap();
        assert!(!kept.exists() && !root.exists());
        purge(&layout).unwrap();
    }

    #[test]
    fn what_is_not_the_laboratorys_stays() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::make(dir.path()).unwrap();
        assert!(!layout.holds_one());
        fs::write(layout.lock(), "1").unwrap();
        assert!(layout.holds_one());
        let foreign = dir.path().join("thesis.txt");
        fs::write(&foreign, "years").unwrap();
        purge(&layout).unwrap();
        assert!(foreign.exists() && !layout.lock().exists() && !layout.logs().exists());
    }
}
